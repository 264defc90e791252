"""How a request is admitted: its places on the board, then its model. HTTP threads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import request

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.model_tables import Task
from app.core.patience import patient_until
from app.http.application.auth import caller_scope
from app.http.application.request_log import record
from app.http.requests.admitted import AdmittedRequest
from app.http.requests.connection import ticket_of
from app.http.requests.limits import TIMEOUT_HEADER, Deadlines
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle

WORK: dict[Task, str] = {"generate": "generate text", "fill-mask": "fill masks", "embeddings": "make embeddings"}


@dataclass(frozen=True, slots=True)
class Need:
    """What a request asks for: places, the field that says how many, and the caller's own part of the cache."""

    num_sequences: int = 1
    param: str = "n"
    cache_salt: str | None = None


NEED_ONE = Need()


@contextmanager
def admit(
    context: WorkerContext, handle: ModelHandle, task: Task | None = None, *, need: Need = NEED_ONE
) -> Iterator[AdmittedRequest]:
    """Admit a request; what it holds is given back where the block raises, else by whoever took it over.

    Raises ``InvalidParameterError`` where there will never be as many places as it needs, and
    ``UnsupportedParameterError`` where the model is for another task than ``task``.
    """
    deadlines = Deadlines.from_now(context.settings, request.headers.get(TIMEOUT_HEADER))
    try:
        place = context.admission.enter(deadlines.own_s, need.num_sequences, ticket_of(request.environ))
    except InvalidParameterError as error:
        raise InvalidParameterError(f"{need.param}: {error.message}", param=need.param) from None
    admitted = AdmittedRequest(place, handle, deadlines, owner_of(need.cache_salt))
    try:
        _require_task(handle, task)
        admitted.wait_for_model()
        _require_task(handle, task)
        with patient_until(min(deadlines.queue_s, deadlines.total_s)):
            yield admitted
    except BaseException:
        admitted.release()
        raise


def owner_of(cache_salt: str | None) -> bytes:
    """Whose computed prefixes this request may use: those of its API key, or of its own part of them."""
    return hashlib.sha256(f"{caller_scope(request.environ)}\0{cache_salt or ''}".encode()).digest()


def _require_task(handle: ModelHandle, task: Task | None) -> None:
    """A task that is not known yet is looked at again once the model is loaded."""
    if task is not None and handle.task not in (None, task):
        text = f"the model {handle.name} does not {WORK[task]}: its task is {handle.task}"
        raise UnsupportedParameterError(text, param=model_param())


def model_param() -> str | None:
    """The field at fault where the chosen model cannot do what is asked: the one that named it, if one did."""
    return "model" if record().is_model_named else None
