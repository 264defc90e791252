"""The models of one worker take turns: a step each, as long as they have work. Inference thread only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from app.core.errors import RequestError
from app.engine.loading.handle import Served
from app.engine.thread.stall_clock import Vitals

if TYPE_CHECKING:
    from app.engine.loading.build import Prepared


class Turns:
    """Steps the models of ``served``, and ends what they have in hand; ``vitals`` is told of every step."""

    def __init__(self, served: Sequence[Served], vitals: Vitals):
        self._served = served
        self._vitals = vitals

    @property
    def have_work(self) -> bool:
        return any(served.has_work for served in self._served)

    def step(self, active: Served | None = None) -> bool:
        """One step of every model that has work; whether there is more.

        ``active`` is in the middle of a step of its own. Inside it no other step may be a whole
        request: those models take turns by request.
        """
        for served in self._served:
            if served is active or not served.has_work or served.prepared is None:
                continue
            self._vitals.note_step()
            serial = served.prepared.serial
            if active is not None and serial is not None:
                serial.sweep()
            else:
                served.prepared.generator.step()
        has_work = self.have_work
        if not has_work:
            self._vitals.note_idle()
        return has_work

    def rest(self, now_s: float) -> float | None:
        """Let every model give back what it has not needed for long; seconds until there may be more, or None."""
        waits = [prepared.rest(now_s) for prepared in self._prepared()]
        return min((wait_s for wait_s in waits if wait_s is not None), default=None)

    def poison(self) -> str | None:
        """What made the device unusable, or None. Any thread."""
        poisons = (prepared.generator.guard.poison for prepared in self._prepared())
        return next((poison for poison in poisons if poison is not None), None)

    def fail_waiting(self, error: RequestError) -> None:
        """End every request that has not started, and those that wait for a model."""
        for served in self._served:
            served.refuse_waiting(error)
        for prepared in self._prepared():
            prepared.generator.fail_waiting(error)

    def fail_all(self, error: RequestError) -> None:
        """End every request."""
        for served in self._served:
            served.refuse_waiting(error)
        for prepared in self._prepared():
            prepared.generator.fail_all(error)

    def _prepared(self) -> Iterator[Prepared]:
        return (prepared for served in self._served if (prepared := served.prepared) is not None)
