"""How large each linear layer's inputs are, from one pass over a short text. Inference thread only.

Trained models have a few inputs far larger than the rest, and in the same places whatever they read: on
SmolLM2 four of 576 hold 61% of what enters queries and keys, and this text finds them as well as the one
that is measured on.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from app.models.checkpoint.loader import Checkpoint
from app.models.served_model import context_size

TEXT = (
    'It was in 1984 that a new machine was built by the team; they wrote: "Hello, world!" '
    "def f(x):\n    return x + 1\n今天天气很好。 Le chat est sur la table. SELECT * FROM users WHERE id = 3;"
)
MAX_TOKENS = 64

Energies = dict[nn.Module, torch.Tensor]


@torch.inference_mode()
def input_energies(checkpoint: Checkpoint) -> Energies:
    """Mean square of every input ``(in,)`` of each ``nn.Linear`` that a pass reaches.

    The first token is left out: models put their attention on it where nothing else is asked for, and it has
    outliers of its own, which say nothing of the others.
    """
    ids = checkpoint.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    limit = min(MAX_TOKENS, context_size(checkpoint.model.config) or MAX_TOKENS)
    found: Energies = {}
    layers = [module for module in checkpoint.model.modules() if type(module) is nn.Linear]
    hooks = [layer.register_forward_pre_hook(partial(_note, found)) for layer in layers]
    tokens = torch.tensor([ids[:limit]], device=checkpoint.device)
    options: dict[str, Any] = {"use_cache": False} if checkpoint.task in ("generate", "seq2seq") else {}
    if checkpoint.task == "seq2seq":
        options["decoder_input_ids"] = tokens
    try:
        checkpoint.model(input_ids=tokens, **options)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _note(found: Energies, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    rows = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
    found[layer] = rows[min(1, len(rows) - 1) :].square().mean(dim=0)
