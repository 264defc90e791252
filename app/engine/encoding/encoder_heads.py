"""What an encoder reads off a forward pass, task by task. Inference thread only.

Each head gets the model's output for texts padded on the right, and gives one ``Encoded`` for each job.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from app.core.tasks.encoder_jobs import Encoded, EncoderJob, Table
from app.core.tasks.task_table import Task
from app.models.checkpoint.loader import Checkpoint
from app.models.encoders.encoder_model import EncoderModel

Head: TypeAlias = Callable[[EncoderModel, Any, Sequence[EncoderJob]], list[Encoded]]


def pass_options(checkpoint: Checkpoint) -> dict[str, bool]:
    """What every pass is told: a decoder with another head keeps no KV cache."""
    takes_cache = "use_cache" in inspect.signature(checkpoint.model.forward).parameters
    return {"use_cache": False} if takes_cache else {}


def fill(model: EncoderModel, output: Any, jobs: Sequence[EncoderJob]) -> list[Encoded]:
    """The likeliest tokens for each mask."""
    results = []
    for row, job in enumerate(jobs):
        places = [at for at, token in enumerate(job.prompt_ids) if token == model.mask_id]
        scores = output.logits[row, places].float().softmax(dim=-1)
        values, tokens = scores.topk(min(job.wanted.top_k, scores.shape[-1]))
        pairs = zip(tokens.tolist(), values.tolist(), strict=True)
        results.append(Encoded(masks=tuple(tuple(zip(*pair, strict=True)) for pair in pairs)))
    return results


def embed(model: EncoderModel, output: Any, jobs: Sequence[EncoderJob]) -> list[Encoded]:
    """One vector for each text, from its own tokens."""
    hidden = output.last_hidden_state.float()
    vectors = [_vector(model, hidden[row, : len(job.prompt_ids)], job) for row, job in enumerate(jobs)]
    return [Encoded(vector=tuple(vector)) for vector in vectors]


def _vector(model: EncoderModel, hidden: torch.Tensor, job: EncoderJob) -> list[float]:
    """Pooled, normalised, cut, and normalised again where it was before. ``hidden`` is ``(seq, size)``."""
    wanted = job.wanted
    vector = _pooled(model, hidden, job.given.num_unpooled)[: wanted.dimensions]
    if model.form.normalize if wanted.normalize is None else wanted.normalize:
        vector = torch.nn.functional.normalize(vector, dim=-1)
    numbers: list[float] = vector.tolist()
    return numbers


def _pooled(model: EncoderModel, hidden: torch.Tensor, num_unpooled: int) -> torch.Tensor:
    match model.form.pooling:
        case "mean":
            return hidden[num_unpooled:].mean(dim=0)
        case "cls":
            return hidden[0]
        case "lasttoken":
            return hidden[-1]


def classify(_model: EncoderModel, output: Any, _jobs: Sequence[EncoderJob]) -> list[Encoded]:
    """A logit for each label of a text or a pair."""
    return [Encoded(logits=tuple(row)) for row in output.logits.float().tolist()]


def tag(_model: EncoderModel, output: Any, jobs: Sequence[EncoderJob]) -> list[Encoded]:
    """For each token the probabilities of its labels."""
    scores = output.logits.float().softmax(dim=-1)
    return [Encoded(table=_table(scores[row, : len(job.prompt_ids)])) for row, job in enumerate(jobs)]


def point(_model: EncoderModel, output: Any, jobs: Sequence[EncoderJob]) -> list[Encoded]:
    """For each token the logits that an answer starts with it and that one ends with it."""
    logits = torch.stack([output.start_logits, output.end_logits], dim=-1).float()
    return [Encoded(table=_table(logits[row, : len(job.prompt_ids)])) for row, job in enumerate(jobs)]


def _table(values: torch.Tensor) -> Table:
    """A copy of its own: a slice would keep the whole batch."""
    return np.array(values.cpu().numpy(), dtype=np.float32)


HEADS: dict[Task, Head] = {
    "fill-mask": fill,
    "embeddings": embed,
    "classify": classify,
    "rerank": classify,
    "zero-shot": classify,
    "entities": tag,
    "answer": point,
}
