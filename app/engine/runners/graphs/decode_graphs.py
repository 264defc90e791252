"""Decoding steps that are recorded when they are first needed, proved, and replayed from then on.

Each shape of a step is a recording of its own. Before it is used, its first replay is compared with the same step done
without it: it is recorded on numbers that are nobody's, so that one which only repeats what it saw is found out. What
cannot be recorded, or differs, is done step by step, and told in the log and the metrics. When memory that recordings
refer to has moved, all of them are dropped. Inference thread only; knows neither models nor caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

import torch

from app.core.logs.logging import get_logger
from app.engine.checks.reference import are_sound, distance
from app.engine.runners.graphs.recorder import Recorder, Recording, Work

# Seconds that recording may take in all, until memory moves and it begins anew: each one is a gap in every stream.
MOST_S = 30.0
# Of the range of the logits: the same kernels, so that only a choice among several of them may differ.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
Outcome = Literal["recorded", "failed", "wrong", "dropped"]

log = get_logger("engine")


@dataclass(frozen=True)
class FixedPass:
    """One step in a shape that it shares with others (``key``), on memory that stays where it is.

    ``fill`` puts the step's numbers there, ``blank`` such as change nothing that anybody reads; ``run`` computes logits
    from what is there, and does nothing else.
    """

    key: Hashable
    fill: Callable[[], None]
    blank: Callable[[], None]
    run: Work


class DecodeGraphs:
    """Recordings by the keys of their passes. ``failure`` is what was first wrong with one; ``on_outcome`` counts."""

    def __init__(self, recorder: Recorder, most_s: float = MOST_S):
        self._recorder, self._most_s = recorder, most_s
        self._recordings: dict[Hashable, Recording] = {}
        self._refused: set[Hashable] = set()
        self._places: tuple[int, ...] = ()
        self._spent_s = 0.0
        self.failure: str | None = None
        self.on_outcome: Callable[[Outcome], None] = lambda _: None

    def __len__(self) -> int:
        return len(self._recordings)

    def run(self, one: FixedPass, places: tuple[int, ...]) -> torch.Tensor:
        """The logits of ``one``, valid until the next call; ``places`` say where what it reads lies in memory."""
        if places != self._places:
            self.drop()
            self._places = places
        one.fill()
        recording = self._recordings.get(one.key)
        if recording is None:
            return self._record(one) if self._may_record(one.key) else one.run()
        recording.replay()
        return recording.output

    def drop(self) -> None:
        """Forget all recordings: what they refer to is no longer there."""
        if self._recordings:
            log.info("decode_graphs_dropped", num_graphs=len(self._recordings))
            self.on_outcome("dropped")
        self._recorder.start_anew()
        self._recordings.clear()
        self._spent_s = 0.0

    def _may_record(self, key: Hashable) -> bool:
        num_bytes = sum(recording.num_bytes for recording in self._recordings.values())
        has_room = num_bytes < self._recorder.most_bytes and self._spent_s < self._most_s
        return has_room and key not in self._refused

    def _record(self, one: FixedPass) -> torch.Tensor:
        """What ``one`` gives; it is recorded for the next time, if that gives the same."""
        started_s = time.monotonic()
        expected = self._recorder.warm_up(one.run)
        if not are_sound(expected):
            # Nothing can be proved by it: another step of this shape will do.
            return expected
        one.blank()
        try:
            recording = self._recorder.record(one.run)
        except Exception as error:
            self._refuse(one.key, f"raises {described(error)}", "failed")
            # What a failed recording has left in a stream or a pool meets none that follows.
            self._recorder.start_anew()
            return expected
        finally:
            one.fill()
            self._spent_s += time.monotonic() - started_s
        failure = self._replay_failure(recording, expected)
        if failure is not None:
            self._refuse(one.key, failure, "wrong")
            # It may have written what it should not have.
            return one.run()
        self._recordings[one.key] = recording
        self.on_outcome("recorded")
        return recording.output

    @staticmethod
    def _replay_failure(recording: Recording, expected: torch.Tensor) -> str | None:
        try:
            recording.replay()
            return difference(recording.output, expected)
        except Exception as error:
            return f"raises {described(error)}"

    def _refuse(self, key: Hashable, failure: str, outcome: Outcome) -> None:
        self._refused.add(key)
        self.failure = self.failure or failure
        log.warning("decode_graph_failed", shape=str(key), reason=failure)
        self.on_outcome(outcome)


def difference(found: torch.Tensor, expected: torch.Tensor) -> str | None:
    """How far the logits of a replay are from those of the step itself, in words; None where rounding explains it."""
    rows, others = (logits.float().flatten(0, -2) for logits in (found, expected))
    share = float(distance(rows, others).amax())
    if share <= TOLERANCE[expected.dtype]:
        return None
    return f"a replay differs by {share:.2g} of the range of the logits from the step itself"


def described(error: Exception) -> str:
    """In one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
