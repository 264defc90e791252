"""Request ids, and what is told of each request: one log line, and its share of the metrics.

HTTP threads. The record lives in a context variable while the request is handled, by whichever door it came; a
streamed answer keeps it until the server closes the response.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flask import Flask, Response, request

from app.core.errors import RequestError
from app.core.logs.logging import get_logger
from app.core.logs.tracebacks import handle_requests
from app.http.application.connection import HttpCaller
from app.http.requests.caller import Caller
from app.serve.context import WorkerContext
from app.serve.incoming.error_forms import id_headers_at
from app.serve.incoming.gate import PROBES

if TYPE_CHECKING:
    from app.core.metrics import Metrics
    from app.http.requests.running import RunningRequest

MAX_IGNORED_NAMES = 32
# Proxies and clients that read heads of 4 kB are common.
MAX_IGNORED_CHARACTERS = 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = get_logger("http")
_record: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


@dataclass(slots=True)
class RequestRecord:
    """What the log line of one request will say."""

    caller: Caller
    route: str
    worker: int | None
    log_prompts: bool
    started_s: float = field(default_factory=time.monotonic)
    model: str | None = None
    is_model_named: bool = False
    recordid: str | int | None = None
    prompt: object = None
    generation: RunningRequest | None = None
    error: RequestError | None = None
    ignored_fields: list[str] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        return self.caller.request_id

    @property
    def model_param(self) -> str | None:
        """The field at fault where the chosen model cannot do what is asked: the one that named it, if one did."""
        return "model" if self.is_model_named else None

    @property
    def error_code(self) -> str | None:
        """Why the request failed, also where its stream told so behind a status of 200."""
        error = self.error or (self.generation and self.generation.error)
        return error.code if error else None

    def emit(self, status: int, metrics: Metrics, rule: str | None) -> None:
        """Count the request and write its line; probes only at debug level, or they would drown the rest."""
        metrics.count_request(rule, status, self.error_code)
        if self.generation is not None:
            generation, total_s = self.generation, time.monotonic() - self.started_s
            metrics.observe_generation(generation.timings(), generation.token_counts(), generation.jobs, total_s)
        write = log.debug if self.route in PROBES else log.info
        write("request", **self._line(status))

    def _line(self, status: int) -> dict[str, Any]:
        line: dict[str, Any] = {
            "request_id": self.request_id,
            "recordid": self.recordid,
            "route": self.route,
            "model": self.model,
            "worker": self.worker,
            "status": status,
            "queue_ms": None,
            "ttft_ms": None,
            "total_ms": round((time.monotonic() - self.started_s) * 1000, 1),
            "prompt_tokens": None,
            "completion_tokens": None,
            "finish_reason": None,
        }
        if self.generation is not None:
            line |= generation_fields(self.generation)
        line["error"] = self.error_code
        if self.ignored_fields:
            line["ignored_fields"] = shown_names(self.ignored_fields)
        if self.log_prompts and self.prompt is not None:
            line["prompt"] = self.prompt
            line["completion"] = self.generation.text if self.generation else None
        return line


def shown_names(names: list[str]) -> list[str]:
    """Names that a caller made up, each once, few and short, as a header can hold them."""
    shown = [quote(name[:64], safe="") for name in list(dict.fromkeys(names))[:MAX_IGNORED_NAMES]]
    ends = accumulate(len(name) + len(", ") for name in shown)
    return [name for name, end in zip(shown, ends, strict=True) if end <= MAX_IGNORED_CHARACTERS]


def generation_fields(generation: RunningRequest) -> dict[str, Any]:
    """What the line says of a generation; None for points that were never reached."""
    timings, usage = generation.timings(), generation.usage()
    points = timings.as_ms()
    reasons = [output.finish_reason for output in generation.outputs]
    return {
        "queue_ms": points["queue_ms"] if timings.started_s is not None else None,
        "ttft_ms": points["ttft_ms"] if timings.first_token_s is not None else None,
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "finish_reason": reasons[0] if reasons and None not in reasons else None,
    }


def record() -> RequestRecord:
    """The record of the request that this thread handles."""
    found = _record.get()
    assert found is not None, "a request is handled"
    return found


def begin_record(opened: RequestRecord) -> None:
    """From here on this thread handles the request of ``opened``; ``end_record`` lets go of what it holds."""
    handle_requests()
    _record.set(opened)


def end_record() -> None:
    """This thread's part in the request is over."""
    _record.set(None)


def init_app(app: Flask, context: WorkerContext) -> None:
    """Open a record before each request; return its id and write its line after."""

    @app.before_request
    def open_record() -> None:
        route = request.url_rule.rule if request.url_rule else request.path[:200]
        request_id = choose_request_id(request.headers.get("X-Request-Id"))
        caller = HttpCaller(request_id, request.environ)
        begin_record(RequestRecord(caller, route, context.slot, context.settings.log_prompts))

    @app.after_request
    def close_record(response: Response) -> Response:
        for name in id_headers_at(request.path):
            response.headers[name] = record().request_id
        if record().ignored_fields:
            response.headers["X-Ignored-Fields"] = ", ".join(shown_names(record().ignored_fields))
        if record().worker is not None:
            response.headers["X-Worker"] = str(record().worker)
            response.headers["X-Load"] = "{}/{}".format(*context.admission.load())
        rule = request.url_rule.rule if request.url_rule else None
        emit_at_end(response, partial(record().emit, response.status_code, context.metrics, rule))
        return response

    @app.teardown_request
    def close_context(_failure: BaseException | None) -> None:
        end_record()


def emit_at_end(response: Response, emit: Callable[[], None]) -> None:
    """Emit now, or when a streamed answer has ended."""
    if response.is_streamed:
        response.call_on_close(emit)
    else:
        emit()


def choose_request_id(given: str | None) -> str:
    """The caller's id where it is well formed, else a new one."""
    return given if given and is_request_id(given) else uuid.uuid4().hex


def is_request_id(text: str) -> bool:
    """Whether a caller's id is well formed."""
    return _REQUEST_ID.fullmatch(text) is not None
