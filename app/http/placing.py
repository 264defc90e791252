"""A request's place on the board and its use of a model, taken before any work. HTTP threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from flask import request

from app.core.errors import InternalError, QueueTimeoutError, RequestTimeoutError, UnsupportedParameterError
from app.core.jobs import BaseJob, Constraint, Grammar
from app.core.model_tables import Task
from app.http.auth import caller_scope
from app.http.backend import WORK, Served, ServedModel, TextModel, Use
from app.http.connection import CLIENT_CHECK_S, is_client_gone
from app.http.errors import ClientGoneError
from app.http.limits import TIMEOUT_HEADER, Deadlines
from app.serve.admission import Place
from app.serve.context import WorkerContext


class Seat:
    """A place, and the use of a loaded model: given back together, once, from any thread."""

    def __init__(self, place: Place, served: Served, deadlines: Deadlines):
        self.served = served
        self.deadlines = deadlines
        self._place = place
        self._use: Use | None = None
        self._model: ServedModel | None = None
        self._asked_s = time.monotonic()
        self._has_waited = False

    @property
    def model(self) -> ServedModel:
        assert self._model is not None, "a seat is handed out with its model"
        return self._model

    @property
    def is_lost(self) -> bool:
        """Whether this worker is given up: its inference thread will not end the request."""
        return self._place.is_lost

    def wait_for_model(self) -> None:
        """Have the model loaded if it is not. Raises a ``RequestError``, also when the caller leaves or it takes too
        long."""
        self._use = self.served.use()
        while (model := self._use.wait(CLIENT_CHECK_S if self._has_waited else 0.0)) is None:
            self._has_waited = True
            self._require_patience()
        self._model = model

    def compiled(self, constraint: Constraint) -> Grammar:
        """What a completion is to match, ready to be followed. Raises a ``RequestError``, also when the caller leaves
        or it takes too long."""
        constraints = cast(TextModel, self.model).constraints
        return constraints.compiled(constraint, caller_scope(request.environ), self._require_patience)

    def submit(self, job: BaseJob) -> None:
        """Queue ``job`` for the model."""
        assert self._use is not None, "a seat is handed out with its model"
        if self._has_waited:
            job.timings.created_s = self._asked_s
        self._use.submit(job)

    def start(self) -> None:
        """The request leaves the queue."""
        self._place.start()

    def release(self) -> None:
        """Give both back; harmless when repeated."""
        self._place.release()
        if self._use is not None:
            self._use.release()

    def _require_patience(self) -> None:
        now_s = time.monotonic()
        if is_client_gone(request.environ):
            raise ClientGoneError()
        if self.is_lost:
            raise InternalError()
        if now_s >= self.deadlines.total_s:
            raise RequestTimeoutError("the request took longer than its time limit")
        if now_s >= self.deadlines.queue_s:
            raise QueueTimeoutError("the request waited to be started longer than its time limit")


@contextmanager
def seated(context: WorkerContext, served: Served, task: Task | None = None) -> Iterator[Seat]:
    """A seat, which is free again where the block raises; else whoever took it over gives it back.

    Raises ``UnsupportedParameterError`` where the model is for another task than ``task``.
    """
    deadlines = Deadlines.from_now(context.settings, request.headers.get(TIMEOUT_HEADER))
    seat = Seat(context.admission.enter(deadlines.own_s), served, deadlines)
    try:
        _require_task(served, task)
        seat.wait_for_model()
        _require_task(served, task)
        yield seat
    except BaseException:
        seat.release()
        raise


def _require_task(served: Served, task: Task | None) -> None:
    """A task that is not known yet is looked at again once the model is loaded."""
    if task is not None and served.task not in (None, task):
        raise UnsupportedParameterError(f"the model {served.name} does not {WORK[task]}: its task is {served.task}")


def first_start(seat: Seat, jobs: Sequence[BaseJob]) -> Callable[[], None]:
    """For ``on_started``: the first job that starts moves the place; the others may then wait for it."""
    has_started = False

    def start() -> None:
        nonlocal has_started
        if has_started:
            return
        has_started = True
        seat.start()
        for job in jobs:
            if job.timings.started_s is None:
                job.queue_deadline_s = float("inf")

    return start
