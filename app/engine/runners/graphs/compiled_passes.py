"""Recorded steps whose operations a compiler has joined into fewer kernels: torch's inductor, on a GPU.

While a model is loaded shapes of steps are compiled beside their plain recordings, as long as there is time; what is
compiled serves where it gives the same and a replay of it takes less. Later nothing is compiled: streams would wait for
it. Graphs are made by the recorder, as of plain passes. Inference thread only; knows neither models nor caches.
"""

from __future__ import annotations

import time
from collections.abc import Hashable

import torch

from app.core.logs.logging import get_logger
from app.engine.checks.reference import TOLERANCE
from app.engine.runners.graphs.recorder import FixedPass, Recorder, Recording
from app.engine.runners.graphs.replay_proof import described, replay_failure

# What a load may take longer for it, where nobody asks for more.
MOST_S = 60.0
NUM_ROUNDS = 10
NAME = "compiled steps"

log = get_logger("engine")


class CompiledPasses:
    """``failure`` is what was wrong with a compiled pass: none is used then."""

    def __init__(self, most_s: float = MOST_S):
        self._most_s, self._spent_s, self._longest_s = most_s, 0.0, 0.0
        self._microseconds: dict[Hashable, tuple[int, int]] = {}
        self._chosen: set[Hashable] = set()
        self._is_open = True
        self.failure: str | None = None

    @property
    def has_time(self) -> bool:
        """Whether another pass may be compiled, which may take as long as the longest so far."""
        return self._is_open and self._spent_s + self._longest_s < self._most_s

    def close(self) -> None:
        """From now on there is no time; says in the log what serves."""
        if self._is_open and self._microseconds:
            log.info(
                "compiled_steps_measured",
                compiled_s=round(self._spent_s, 1),
                faster=len(self._chosen),
                microseconds={str(key): times for key, times in self._microseconds.items()},
            )
        self._is_open = False

    def refine(self, one: FixedPass, plain: Recording, expected: torch.Tensor, recorder: Recorder) -> Recording:
        """``plain``, or the recording of the same pass as compiled; it was replayed last.

        ``expected`` is what the pass gave.
        """
        if one.compiled is None or not self.has_time:
            return plain
        compiled = self._recorded(one, expected, recorder)
        if compiled is not None and self._is_faster(one.key, plain, compiled, recorder):
            compiled.replay()
            return compiled
        plain.replay()
        return plain

    def _recorded(self, one: FixedPass, expected: torch.Tensor, recorder: Recorder) -> Recording | None:
        """None where it takes too long, raises, or gives something else."""
        assert one.compiled is not None
        started_s = time.monotonic()
        try:
            recorder.warm_up(one.compiled)
            took_s = time.monotonic() - started_s
            self._spent_s, self._longest_s = self._spent_s + took_s, max(self._longest_s, took_s)
            if took_s > self._most_s:
                self._is_open = False
                log.info("compiled_steps_not_used", reason=f"one took {took_s:.0f} s, {self._most_s:.0f} are for all")
                return None
            one.blank()
            compiled = recorder.record(one.compiled)
        except Exception as error:
            recorder.start_anew()
            self._give_up(one, f"raises {described(error)}")
            return None
        finally:
            one.fill()
        failure = replay_failure(compiled, expected, TOLERANCE)
        if failure is not None:
            self._give_up(one, failure)
            return None
        return compiled

    def _is_faster(self, key: Hashable, plain: Recording, compiled: Recording, recorder: Recorder) -> bool:
        """By the least time of some replays, which take turns."""
        least_s = [float("inf")] * 2
        for _ in range(NUM_ROUNDS):
            for at, recording in enumerate((plain, compiled)):
                recorder.wait()
                started_s = time.perf_counter()
                recording.replay()
                recorder.wait()
                least_s[at] = min(least_s[at], time.perf_counter() - started_s)
        self._microseconds[key] = round(1e6 * least_s[0]), round(1e6 * least_s[1])
        if least_s[1] < least_s[0]:
            self._chosen.add(key)
        return key in self._chosen

    def _give_up(self, one: FixedPass, failure: str) -> None:
        self._is_open, self.failure = False, failure
        log.warning("compiled_step_failed", shape=str(one.key), reason=failure)
