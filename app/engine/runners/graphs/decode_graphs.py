"""Decoding steps that are recorded when they are first needed, proved, and replayed from then on.

Each shape of a step is a recording of its own. Before it is used, its first replay is compared with the same step done
without it: it is recorded on numbers that are nobody's, so that one which only repeats what it saw is found out. What
cannot be recorded, or differs, is done step by step, and told in the log and the metrics. When memory that recordings
refer to has moved, all of them are dropped. Inference thread only; knows neither models nor caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TypeAlias

import torch

from app.core.logs.logging import get_logger
from app.engine.checks.reference import are_sound
from app.engine.runners.graphs.recorder import FixedPass, Outcome, Recorder, Recording
from app.engine.runners.graphs.replay_proof import described, replay_failure

# Seconds that recording may take in all, until memory moves and it begins anew: each one is a gap in every stream.
MOST_S = 30.0
# Of the range of the logits: the same kernels, so that only a choice among several of them may differ.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# What serves in the place of a recording of a pass that gave so and so: itself, or a faster one, as well proved.
Refine: TypeAlias = Callable[[FixedPass, Recording, torch.Tensor, Recorder], Recording]

log = get_logger("engine")


class DecodeGraphs:
    """Recordings by the keys of their passes. ``failure`` is what was first wrong with one; ``on_outcome`` counts.

    ``refine`` may put a better one in a recording's place.
    """

    def __init__(self, recorder: Recorder, most_s: float = MOST_S, refine: Refine | None = None):
        self._recorder, self._most_s, self._refine = recorder, most_s, refine
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
        failure = replay_failure(recording, expected, TOLERANCE)
        if failure is not None:
            self._refuse(one.key, failure, "wrong")
            # It may have written what it should not have.
            return one.run()
        if self._refine is not None:
            recording = self._refine(one, recording, expected, self._recorder)
        self._recordings[one.key] = recording
        self.on_outcome("recorded")
        return recording.output

    def _refuse(self, key: Hashable, failure: str, outcome: Outcome) -> None:
        self._refused.add(key)
        self.failure = self.failure or failure
        log.warning("decode_graph_failed", shape=str(key), reason=failure)
        self.on_outcome(outcome)
