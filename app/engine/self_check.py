"""Decides at load whether a model can run on the slot KV cache. Inference thread only.

First the model's own cache is asked what its layers keep; then a short generation on two rows is
compared with ``generate``. A model that fails either goes through the fallback.
"""

from __future__ import annotations

import random

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from app.core.logging import get_logger
from app.engine.runner import TOLERANCE, SlotRunner
from app.models.text_model import TextModel

NUM_CHECKED_TOKENS = 6

log = get_logger("engine")


def can_use_slots(text_model: TextModel) -> bool:
    """Whether ``text_model`` gives on slots what it gives through ``generate``."""
    if not has_plain_cache(text_model):
        return False
    try:
        difference = slot_difference(text_model)
    except Exception as error:
        log.info("slot_check_failed", model=text_model.name, error=f"{type(error).__name__}: {error}")
        return False
    is_equal = difference <= TOLERANCE[text_model.checkpoint.dtype]
    if not is_equal:
        log.info("slot_check_failed", model=text_model.name, difference=difference)
    return is_equal


def has_plain_cache(text_model: TextModel) -> bool:
    """Whether every layer keeps all keys and values of at least the whole context."""
    config = text_model.checkpoint.model.config
    if config.is_encoder_decoder or getattr(text_model.checkpoint.model, "_is_stateful", False):
        return False
    layers = DynamicCache(config=config.get_text_config()).layers
    return all(
        type(layer) is DynamicLayer
        or (type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= text_model.context_tokens)
        for layer in layers
    )


@torch.inference_mode()
def slot_difference(text_model: TextModel) -> float:
    """Largest difference between the logits of slots and ``generate``, as a share of their range."""
    model, device = text_model.checkpoint.model, text_model.checkpoint.device
    rng = random.Random(0)
    long, short = ([rng.randrange(1, text_model.vocab_size) for _ in range(n)] for n in (21, 5))
    length = min(len(long), text_model.context_tokens - NUM_CHECKED_TOKENS)
    prompt = long[:length]
    ids = torch.tensor([prompt], device=device)
    reference = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NUM_CHECKED_TOKENS,
        min_new_tokens=NUM_CHECKED_TOKENS,
        output_logits=True,
        return_dict_in_generate=True,
    )
    expected = torch.cat(reference.logits).float()
    runner = SlotRunner(text_model.checkpoint, 2, text_model.context_tokens)
    runner.prefill(0, short[:1], 0)
    runner.prefill(1, prompt[: length // 2], 0)
    found = [runner.prefill(1, prompt[length // 2 :], length // 2)[0]]
    for i, token in enumerate(reference.sequences[0, length:-1].tolist()):
        found.append(runner.decode([[short[i % len(short)]], [token]], [i + 1, length + i])[1, 0])
    difference = (torch.stack(found).float() - expected).abs().max()
    return float(difference / (expected.max() - expected.min()))
