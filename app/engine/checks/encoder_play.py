"""The play of an encoder at a load: texts of unlike lengths, together and each by itself. Inference thread only."""

from __future__ import annotations

import torch

from app.core.settings import Settings
from app.core.tasks.encoder_jobs import Encoded, EncodeOptions, EncoderInput, EncoderJob
from app.engine.checks.features import bound_of
from app.engine.checks.plays import Play
from app.engine.checks.reference import distance, probe_tokens, tolerance_of
from app.engine.checks.rehearsal import StrictGuard, advance
from app.engine.encoding.micro_batcher import MicroBatcher
from app.models.encoders.encoder_model import EncoderModel


def encoding_failure(batcher: MicroBatcher, model: EncoderModel, settings: Settings, play: Play) -> str | None:
    """Whether a text is encoded as it is alone, whatever waits with it."""
    device = model.checkpoint.device
    lengths = (play.num_long, play.num_short, play.num_other)
    try:
        found = encoded(batcher, [text_job(model, length) for length in lengths], device)
        lone = [
            vector
            for length in lengths
            for vector in encoded(MicroBatcher(model, max_items=1), [text_job(model, length)], device)
        ]
    except Exception as error:
        return f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    tolerance = tolerance_of(model.checkpoint.dtype, is_rounded=bound_of(settings) is not None)
    shares = [float(distance(one[None], other[None])) for one, other in zip(found, lone, strict=True)]
    wrong = [share for share in shares if not share <= tolerance]
    return f"a text in a batch differs by {max(wrong):.2g} of the range of the same text alone" if wrong else None


def text_job(model: EncoderModel, length: int) -> EncoderJob:
    """A text that ends as texts do, and in a mask for models that fill them."""
    tokens = probe_tokens(model, min(length, model.context_tokens))
    if model.task == "fill-mask" and model.mask_id is not None:
        tokens[-1] = model.mask_id
    return EncoderJob("self-check", EncoderInput(tokens), EncodeOptions(top_k=model.vocab_size))


def encoded(batcher: MicroBatcher, jobs: list[EncoderJob], device: torch.device) -> list[torch.Tensor]:
    """One row of numbers for each job."""
    batcher.guard = StrictGuard(device)
    for job in jobs:
        batcher.add(job)
    advance(batcher, lambda: not batcher.has_work)
    return [torch.tensor(numbers(job.encoded)) for job in jobs if job.encoded is not None]


def numbers(encoded: Encoded) -> list[float]:
    """A vector, the probabilities of all tokens in the place of the last mask, or logits.

    A text may have one logit, which has no range of its own: it is told as a share of 1 at least.
    """
    if encoded.table is not None:
        return [*map(float, encoded.table.ravel()), 0.0, 1.0]
    if encoded.logits:
        return [*encoded.logits, 0.0, 1.0]
    return list(encoded.vector) or [score for _, score in sorted(encoded.masks[-1])]
