"""A really running server with a tiny model, for clients that we did not write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter

KEY = "secret"
MODEL = "qwen2"


class RunningServer(Forklift):
    """Takes two requests at a time; a third is refused."""


def start(folder: Path, model: Path) -> Iterator[RunningServer]:
    """Starts it, and stops it when the iterator goes on."""
    starter = server_starter(folder, RunningServer)
    yield next(starter)(model=model, model_name=MODEL, api_keys=KEY, max_batch_size=2, max_queue=14)
    next(starter, None)


Reference = Callable[[list[int]], list[list[float]]]


def forward_pass(folder: Path) -> Reference:
    """Log-softmax of transformers' own logits: one row per token of the prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def score(ids: list[int]) -> list[list[float]]:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].log_softmax(-1).tolist()

    return score
