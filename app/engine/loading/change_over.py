"""From the eager step to a compiled one while a model serves: checked as at a load, a pass at a time, then changed.

Inference thread only. Between two pieces the model serves as before; sequences keep their rows and entries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

from app.core.settings import Settings
from app.engine.checks.plain_cache import window_room
from app.engine.checks.plays import BRIEF, Play
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.stepped_work import SteppedWork
from app.engine.runners.compiled import CompiledRunner, NativePasses, runner_on
from app.engine.runners.mixed import MixedRunner
from app.models.compiled.compiled_step import CompiledStep, find_step, has_better_code
from app.models.compiled.large_weights import move_in_pieces
from app.models.compiled.native_pass import NativePass
from app.models.text_model import TextModel
from app.models.weights.packing import is_packed, pack_in_pieces, unpack_in_pieces

# Rows that the check decodes together: its play has no more at a time.
NUM_CHECKED_ROWS = 4
# What is wrong with the play of an engine on a model; ``repeats`` where it guesses drafts.
Check: TypeAlias = Callable[[BatchedEngine, TextModel, Settings, Play, bool], str | None]


class PacedEngine(BatchedEngine):
    """Calls ``pause`` behind each step."""

    def __init__(self, *parts: Any, pause: Callable[[], None]):
        super().__init__(*parts)
        self._pause = pause

    def step(self, *, is_shared: bool = False) -> None:
        super().step(is_shared=is_shared)
        self._pause()


class ChangeOver:
    """Of a serving ``engine`` to the package that fits its model, if that passes ``check``.

    Ended, it has a ``failure`` (what the check found), a ``reason`` (why there is nothing to change to), or neither:
    then the engine runs on the package.
    """

    def __init__(self, model: TextModel, settings: Settings, engine: BatchedEngine, check: Check):
        self._model, self._settings, self._engine, self._play = model, settings, engine, check
        self.failure: str | None = None
        self.reason: str | None = None
        self._work = SteppedWork(self._change)

    def advance(self) -> bool:
        """A piece: about as long as a pass. Whether there is more."""
        return self._work.advance()

    def abandon(self) -> None:
        """Leave the engine as it is."""
        self._work.abandon()

    def _change(self, pause: Callable[[], None]) -> None:
        checkpoint = self._model.checkpoint
        if is_packed(checkpoint) and not has_better_code(checkpoint, self._settings):
            self.reason = "its weights lie in a layout that its package does not gain from at all sizes of a pass"
            return
        places = unpack_in_pieces(checkpoint, pause)
        if self._has_step():
            move_in_pieces(checkpoint, pause)
        step = find_step(checkpoint, self._settings)
        pause()
        if isinstance(step, str):
            self.reason = step
        else:
            self.failure = self._check(step, pause)
        if self.reason is None and self.failure is None and not isinstance(step, str):
            self._install(step)
        else:
            pack_in_pieces(places, pause)

    def _has_step(self) -> bool:
        """Whether there is one; it is let go of, since it holds the weights where they lie."""
        return not isinstance(find_step(self._model.checkpoint, self._settings), str)

    def _check(self, step: CompiledStep | NativePass, pause: Callable[[], None]) -> str | None:
        """What is wrong with the answers of a second engine on ``step``, whose cache is its own."""
        options = BatchOptions.of(self._settings, self._model.checkpoint.device)
        num_rows = min(options.max_running, NUM_CHECKED_ROWS)
        played = replace(options, max_running=num_rows, prefill_chunk_tokens=BRIEF.chunk_tokens, adapts_drafts=False)
        runner = self._runner(step, num_rows, self._model.context_tokens)
        engine = PacedEngine(self._model, played, runner, pause=pause)
        return self._play(engine, self._model, self._settings, BRIEF, played.num_draft_tokens > 0)

    def _runner(self, step: CompiledStep | NativePass, num_rows: int, max_tokens: int) -> CompiledRunner | NativePasses:
        room = window_room(self._model, self._settings)
        return runner_on(step, self._model.checkpoint, num_rows, max_tokens, most_new=room)

    def _install(self, step: CompiledStep | NativePass) -> None:
        old = self._engine.runner
        assert isinstance(old, MixedRunner)
        cache = old.cache
        runner = self._runner(step, cache.num_rows, cache.max_tokens)
        runner.take_over(old)
        self._engine.change_runner(runner)
