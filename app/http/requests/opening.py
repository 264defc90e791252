"""The one way to open a request: admitted, its model had, its task checked, planned, submitted. HTTP threads.

What differs between the kinds of requests is a ``Work``. Whatever fails on the way, what the request holds is given
back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.patience import patient_until
from app.core.tasks.task_table import TASKS, Task, can_serve
from app.http.application.request_log import record
from app.http.requests.admitted import NEED_ONE, AdmittedRequest, Need
from app.http.requests.limits import Deadlines
from app.http.requests.running import RunningRequest
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle

Running = TypeVar("Running", bound=RunningRequest, covariant=True)


class Work(Protocol[Running]):
    """What one request is about."""

    @property
    def task(self) -> Task | None:
        """What its model must be for; None: that is looked at when it is planned."""

    @property
    def need(self) -> Need: ...

    def plan(self, admitted: AdmittedRequest) -> Running:
        """Do all that needs both the body and the model, and submit nothing. Raises a ``RequestError``."""


def open_request(context: WorkerContext, handle: ModelHandle, work: Work[Running]) -> Running:
    """The request once its first jobs are submitted; its log line will tell of it. Raises a ``RequestError``."""
    with admit(context, handle, work.task, need=work.need) as admitted:
        running = work.plan(admitted)
    record().generation = running
    try:
        running.start()
    except BaseException as error:
        running.fail(error)
        raise
    return running


@contextmanager
def admit(
    context: WorkerContext, handle: ModelHandle, task: Task | None = None, *, need: Need = NEED_ONE
) -> Iterator[AdmittedRequest]:
    """Admit a request; what it holds is given back where the block raises, else by whoever took it over.

    Raises ``InvalidParameterError`` where there will never be as many places as it needs, and
    ``UnsupportedParameterError`` where the model is for another task than ``task``.
    """
    caller = record().caller
    deadlines = Deadlines.from_now(context.settings, caller.own_limit_s())
    try:
        ticket = context.admission.enter(deadlines.own_s, need.num_sequences, caller.ticket)
    except InvalidParameterError as error:
        raise InvalidParameterError(f"{need.param}: {error.message}", param=need.param) from None
    owner = owner_of(caller.scope, need.cache_salt)
    admitted = AdmittedRequest(caller, ticket, handle, deadlines, owner)
    try:
        require_task(handle, task)
        admitted.wait_for_model()
        require_task(handle, task)
        with patient_until(min(deadlines.queue_s, deadlines.total_s)):
            yield admitted
    except BaseException:
        admitted.release()
        raise


def owner_of(scope: str, cache_salt: str | None) -> bytes:
    """Whose computed prefixes this request may use: those of its API key, or of its own part of them."""
    return hashlib.sha256(f"{scope}\0{cache_salt or ''}".encode()).digest()


def require_task(handle: ModelHandle, task: Task | None) -> None:
    """Raise ``UnsupportedParameterError`` where the model is for another one.

    A task that is not known yet is looked at again once the model is loaded.
    """
    if task is not None and not can_serve(handle.task, task):
        text = f"the model {handle.name} does not {TASKS[task].does}: its task is {handle.task}"
        raise UnsupportedParameterError(text, param=record().model_param)
