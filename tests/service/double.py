"""A tiny application and a stand-in for the inference thread, for tests of the processes alone.

Runs inside real Gunicorn workers. The stand-in is steered by ``DOUBLE_`` environment variables.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from app.core.errors import ModelLoadError, RequestError, StartError
from app.http.application.connection import ticket_of
from app.serve.context import current

TICK_S = 0.02


class InferenceDouble:
    """Loads by sleeping, runs jobs by letting their HTTP threads sleep."""

    kv_cache_max_bytes = 0

    def __init__(self, settings: object, slot: int, on_state: Callable[[Any, float], None], _metrics: object):
        self._on_state = on_state
        self.environ_at_start: dict[str, str] = {}
        self.cancelled_by: RequestError | None = None
        self.is_draining = False

    def start(self) -> None:
        self.environ_at_start = dict(os.environ)
        threading.Thread(target=self._load, daemon=True).start()

    def drain(self) -> None:
        self.is_draining = True

    def cancel_all(self, error: RequestError) -> None:
        self.cancelled_by = error

    def load_failure(self) -> StartError | None:
        return ModelLoadError("the double has no model") if os.environ.get("DOUBLE_LOAD") == "fails" else None

    def start_anew(self) -> None: ...

    def defect(self) -> str | None:
        flag = os.environ.get("DOUBLE_DEFECT")
        return "the double is broken" if flag and Path(flag).exists() else None

    def _load(self) -> None:
        self._on_state("loading", 0.5)
        if os.environ.get("DOUBLE_LOAD") == "dies":
            os._exit(9)
        time.sleep(float(os.environ.get("DOUBLE_LOAD_S", "0")))
        self._on_state("failed" if self.load_failure() else "ready", 1.0)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Routes by the first part of the path."""
    route = ROUTES[environ["PATH_INFO"].strip("/")]
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    try:
        answer = route(environ, query)
    except RequestError as error:
        body = json.dumps({"error": error.body()}).encode()
        start_response(f"{error.status} Refused", [("Content-Length", str(len(body))), *error.headers().items()])
        return [body]
    if isinstance(answer, Iterator):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return answer
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "application/json")])
    return [body]


def livez(environ: dict[str, Any], query: dict[str, str]) -> object:
    return {"pid": os.getpid()}


def readyz(environ: dict[str, Any], query: dict[str, str]) -> object:
    names = ("slot", "pid", "gpus", "state", "num_running", "num_waiting", "num_connections")
    return [{name: getattr(row, name) for name in names} for row in current().board.rows()]


def work(environ: dict[str, Any], query: dict[str, str]) -> object:
    """Hold a place for ``s`` seconds; answers which worker did."""
    context = current()
    place = context.admission.enter(connection=ticket_of(environ))
    try:
        place.start()
        end_s = time.monotonic() + float(query["s"])
        while time.monotonic() < end_s:
            _raise_if_cancelled()
            time.sleep(TICK_S)
        return {"slot": context.slot, "pid": os.getpid()}
    finally:
        place.release()


def stream(environ: dict[str, Any], query: dict[str, str]) -> Iterator[bytes]:
    """One event per tick for ``s`` seconds."""
    place = current().admission.enter(connection=ticket_of(environ))
    return _events(place, float(query["s"]), b"x" * int(query.get("bytes", "1")))


def _events(place: Any, duration_s: float, payload: bytes) -> Iterator[bytes]:
    try:
        place.start()
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            _raise_if_cancelled()
            yield b"data: " + payload + b"\n\n"
            time.sleep(TICK_S)
        yield b"data: [DONE]\n\n"
    except RequestError as error:
        yield b"data: " + json.dumps({"error": error.body()}).encode() + b"\n\n"
    finally:
        place.release()


def _raise_if_cancelled() -> None:
    error = getattr(current().inference, "cancelled_by", None)
    if error is not None:
        raise error


def echo(environ: dict[str, Any], query: dict[str, str]) -> object:
    """The body as it was read, with the length that the head announced."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > current().settings.max_body_bytes:
        return {"too_large": length}
    return {"body": environ["wsgi.input"].read().decode(), "length": length}


def env(environ: dict[str, Any], query: dict[str, str]) -> object:
    inference = current().inference
    assert isinstance(inference, InferenceDouble)
    return {"environ": inference.environ_at_start, "modules": sorted(sys.modules)}


def breaks(environ: dict[str, Any], query: dict[str, str]) -> object:
    raise RuntimeError("secret detail")


ROUTES: dict[str, Callable[[dict[str, Any], dict[str, str]], object]] = {
    "livez": livez,
    "readyz": readyz,
    "work": work,
    "stream": stream,
    "echo": echo,
    "env": env,
    "breaks": breaks,
}
