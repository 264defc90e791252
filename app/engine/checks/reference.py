"""What a model is asked at its load, and how near two answers must be to count as the same.

Inference thread only; knows neither engines nor features.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch

from app.core.errors import ContextLengthError, InvalidParameterError, ModelLoadError
from app.models.checkpoint.loader import Checkpoint
from app.models.served_model import ServedModel
from app.models.tokens.token_positions import plain_positions

# Real text: random tokens put a trained model where its probabilities say little.
TEXT = (
    "The lever was old, but it still moved. def area(width, height):\n    return width * height\n"
    "Water boils at 100 degrees; in 1998 they measured 99.6 on the hill, and wrote it down."
)
# Of the range of the logits: rounding differs with the shapes of a pass, a wrong cache by far more.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 6e-2}
# The same where weights were rounded: what a pass adds up in another order is rounded otherwise too.
ROUNDED_TOLERANCE = 0.1
# Further below the likeliest token a logit changes nothing, and some models fill up with the least number there is.
IRRELEVANT = 100.0


@dataclass(frozen=True)
class Bound:
    """How far weights that were rounded on purpose may move the answers.

    ``divergence``: mean Kullback-Leibler divergence per position. ``error``: of what is left of the logits (or the
    states) without their mean, as a share of its size; it also judges models that are sure of nothing.
    """

    divergence: float
    error: float


BOUNDS = {"int8": Bound(0.05, 0.12), "int4": Bound(0.4, 0.6), "file": Bound(0.05, 0.12), "fp8": Bound(0.15, 0.3)}


def tolerance_of(dtype: torch.dtype, *, is_rounded: bool) -> float:
    """The share of the range of the logits that two passes over the same weights may differ by."""
    return ROUNDED_TOLERANCE if is_rounded else TOLERANCE[dtype]


def probe_tokens(model: ServedModel, count: int) -> list[int]:
    """``count`` token ids: a text's, and random ones where there are too few of it or the context is tiny.

    For an encoder they end with the token that ends its texts, which some heads look for.
    """
    try:
        tokens = model.encode(TEXT)
    except (ContextLengthError, InvalidParameterError):
        tokens = []
    end = tokens[-1:] if model.task != "generate" else []
    tokens = tokens[: count - len(end)]
    rng = random.Random(0)
    return tokens + [rng.randrange(1, model.vocab_size) for _ in range(count - len(end) - len(tokens))] + end


@torch.inference_mode()
def plain_results(checkpoint: Checkpoint, tokens: list[int]) -> torch.Tensor:
    """What one forward pass without a cache gives, float32 on the CPU.

    Logits ``(len(tokens), vocab)`` where the head gives one for each token of the vocabulary, else the last states
    ``(len(tokens), size)``: heads with few labels leave too little to compare. A decoder that reads another text is
    given the same tokens as both.
    """
    ids = torch.tensor([tokens], device=checkpoint.device)
    has_logits = checkpoint.task in ("generate", "seq2seq", "fill-mask")
    options: dict[str, Any] = {"use_cache": False} if checkpoint.task in ("generate", "seq2seq") else {}
    if checkpoint.task == "seq2seq":
        options["decoder_input_ids"] = ids
    if checkpoint.task == "generate":
        options |= plain_positions(checkpoint.model, ids)
    if not has_logits:
        options["output_hidden_states"] = True
    output = checkpoint.model(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    results: torch.Tensor = output.logits if has_logits else last_states(output)
    return results[0].float().cpu()


def last_states(output: Any) -> torch.Tensor:
    """States ``(batch, seq, size)`` behind the last layer: of the decoder, where there is one beside the encoder."""
    layers = output.get("hidden_states") or output.get("decoder_hidden_states")
    states: torch.Tensor = layers[-1] if output.get("last_hidden_state") is None else output["last_hidden_state"]
    return states


def are_sound(values: torch.Tensor) -> bool:
    """Whether each row ``(rows, size)`` has a largest entry that is a number; a logit of -inf bans a token."""
    return bool(values.amax(dim=-1).isfinite().all())


@torch.inference_mode()
def check_weights(name: str, checkpoint: Checkpoint) -> None:
    """Raise ``ModelLoadError`` for a weight that holds NaN or infinity.

    Sums are read instead of entries, as they pass both on; only one that is off is looked into. Weights that lie on
    disk are not read.
    """
    for weight_name, weight in checkpoint.model.named_parameters():
        if weight.device.type == "meta" or not weight.is_floating_point():
            continue
        if not math.isfinite(float(weight.sum(dtype=torch.float32))) and not bool(weight.isfinite().all()):
            raise ModelLoadError(f"the model {name} has NaN or infinity in its weight {weight_name}")


def distance(found: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Largest difference of each row ``(rows,)``, as a share of the range of ``expected``; both ``(rows, size)``."""
    floor = expected.amax(dim=-1, keepdim=True) - IRRELEVANT
    found, expected = found.maximum(floor), expected.maximum(floor)
    return (found - expected).abs().amax(dim=-1) / range_of(expected)


def range_of(values: torch.Tensor) -> float:
    """Between the least and the largest relevant entry; never 0."""
    floor = values.amax(dim=-1, keepdim=True) - IRRELEVANT
    relevant = values.maximum(floor)
    return max(float(relevant.max() - relevant.min()), 1e-12)


def divergence(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Mean over the rows of the Kullback-Leibler divergence of ``found`` logits from ``expected`` ones."""
    target = expected.double().log_softmax(dim=-1)
    terms = target.exp() * (target - found.double().log_softmax(dim=-1))
    return float(terms.masked_fill(target.isneginf(), 0.0).sum(dim=-1).mean())


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Size of the difference as a share of ``expected``'s, both without the mean of each row."""
    floor = expected.amax(dim=-1, keepdim=True) - IRRELEVANT
    wanted = centred(expected.maximum(floor))
    return float((centred(found.maximum(floor)) - wanted).norm() / wanted.norm().clamp(min=1e-12))


def centred(values: torch.Tensor) -> torch.Tensor:
    """Without the mean of each row."""
    return values - values.mean(dim=-1, keepdim=True)


def departure(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, bound: Bound | None) -> str | None:
    """How ``found`` departs from ``expected`` further than it may, in words; None where it does not.

    Without a ``bound`` only rounding in ``dtype`` may lie between them.
    """
    if not are_sound(found):
        return "gives NaN or infinity"
    if bound is None:
        share = float(distance(found, expected).max())
        is_near = share <= TOLERANCE[dtype]
        return None if is_near else f"differs by {share:.2g} of the range of the plain model's results"
    error = relative_error(found, expected)
    if not error <= bound.error:
        return f"differs by {error:.2g} of the plain model's results, at most {bound.error:g} is allowed"
    diverged = divergence(found, expected)
    if not diverged <= bound.divergence:
        return f"diverges by {diverged:.2g} from the plain model, at most {bound.divergence:g} is allowed"
    return None
