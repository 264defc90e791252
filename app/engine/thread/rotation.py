"""The models of one worker take turns: a step each, as long as they have work. Inference thread only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from app.core.errors import RequestError
from app.engine.loading.handle import ModelHandle
from app.engine.thread.stall_clock import StallClock

if TYPE_CHECKING:
    from app.engine.loading.prepared import Prepared


class Rotation:
    """Steps the models of ``handles``, and ends what they have in hand; ``stall_clock`` is told of every step."""

    def __init__(self, handles: Sequence[ModelHandle], stall_clock: StallClock):
        self._handles = handles
        self._stall_clock = stall_clock

    @property
    def have_work(self) -> bool:
        return any(handle.has_work for handle in self._handles)

    def step(self) -> bool:
        """One step of every model that has work; whether there is more."""
        for handle in self._handles:
            if handle.has_work:
                self._stall_clock.note_step()
                handle.engine.step(is_shared=self._others_wait(handle))
        has_work = self.have_work
        if not has_work:
            self._stall_clock.note_idle()
        return has_work

    def _others_wait(self, handle: ModelHandle) -> bool:
        """Whether a step of ``handle`` is a gap in what another model writes."""
        return any(other.has_work for other in self._handles if other is not handle)

    def rest(self, now_s: float) -> float | None:
        """Let every model give back what it has not needed for long; seconds until there may be more, or None."""
        waits = [prepared.engine.rest(now_s) for prepared in self._prepared()]
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def poison(self) -> str | None:
        """What made the device unusable, or None. Any thread."""
        poisons = (prepared.engine.guard.poison for prepared in self._prepared())
        return next((poison for poison in poisons if poison is not None), None)

    def fail_waiting(self, error: RequestError) -> None:
        """End every request that has not started, and those that wait for a model."""
        for handle in self._handles:
            handle.refuse_waiting(error)
        for prepared in self._prepared():
            prepared.engine.fail_waiting(error)

    def fail_all(self, error: RequestError) -> None:
        """End every request."""
        for handle in self._handles:
            handle.refuse_waiting(error)
        for prepared in self._prepared():
            prepared.engine.fail_all(error)

    def _prepared(self) -> Iterator[Prepared]:
        return (prepared for handle in self._handles if (prepared := handle.prepared) is not None)
