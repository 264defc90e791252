"""Whether a recording gives what the step itself gave. Inference thread only."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from app.engine.checks.reference import distance
from app.engine.runners.graphs.recorder import Recording

# By the dtype of the logits: how large a share of their range may lie between the two.
Tolerances = Mapping[torch.dtype, float]


def replay_failure(recording: Recording, expected: torch.Tensor, tolerances: Tolerances) -> str | None:
    """What is wrong with what a replay gives, in words; None where nothing is."""
    try:
        recording.replay()
        share = share_of(recording.output, expected)
    except Exception as error:
        return f"raises {described(error)}"
    if share <= tolerances[expected.dtype]:
        return None
    return f"a replay differs by {share:.2g} of the range of the logits from the step itself"


def share_of(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How far logits are from others, as a share of their range."""
    rows, others = (logits.float().flatten(0, -2) for logits in (found, expected))
    return float(distance(rows, others).amax())


def described(error: Exception) -> str:
    """In one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
