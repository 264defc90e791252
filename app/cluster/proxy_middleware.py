"""What stands outermost where Serve takes requests in, in its own proxy and in replicas behind HAProxy.

Serve sets ``X-Request-Id`` beside ours, repeats one that is not well formed, and obeys headers of its own by which a
caller could change deadlines; what its proxy says of a lost replica is plain text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from app.cluster.bridge.asgi_types import Message, Receive, Scope, Send, response_body, response_start
from app.core.logs.logging import get_logger
from app.http.application.request_log import is_request_id
from app.serve.incoming.error_answers import answer_to, replica_lost

if TYPE_CHECKING:
    from starlette.middleware import Middleware

REQUEST_ID = b"x-request-id"
INSTANCE = b"x-instance"
OF_SERVE = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})
# Serve's own routes, for load balancers.
OWN_ROUTES = "/-/"
LOST = frozenset({500, 503})

log = get_logger("cluster")


def middlewares() -> list[Middleware]:
    """Named by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    from starlette.middleware import Middleware

    return [Middleware(OneContract)]


class OneContract:
    """Requests and answers as they would be without Serve."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or str(scope["path"]).startswith(OWN_ROUTES):
            await self._app(scope, receive, send)
            return
        scope["headers"] = [field for field in scope["headers"] if _is_kept(*field)]
        answer = _Answer(str(scope["path"]), send)
        try:
            await self._app(scope, receive, answer)
        except Exception:
            if answer.has_begun:
                raise
            log.exception("no_answer", path=scope["path"])
        # The server would say so in plain text.
        if not answer.has_begun:
            await answer.replace()


class _Answer:
    """Sends on what comes, its head put in order; what the proxy itself says of a failure becomes our envelope."""

    def __init__(self, path: str, send: Send):
        self._path = path
        self._send = send
        self._is_replaced = self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._is_replaced:
            await self._send(message)

    async def replace(self) -> None:
        """Say that the replica was lost, whatever else is said."""
        self._is_replaced = self.has_begun = True
        answer = answer_to(self._path, replica_lost())
        await self._send(response_start(answer.status, [(n.lower().encode(), v.encode()) for n, v in answer.headers]))
        await self._send(response_body(answer.body, is_last=True))

    async def _start(self, message: Message) -> None:
        headers: list[tuple[bytes, bytes]] = [(bytes(name).lower(), bytes(value)) for name, value in message["headers"]]
        is_ours = any(name == INSTANCE for name, _ in headers)
        if is_ours or message["status"] not in LOST:
            self.has_begun = True
            await self._send({**message, "headers": _with_one_id(headers)})
        else:
            await self.replace()


def _is_kept(name: bytes, value: bytes) -> bool:
    if name == REQUEST_ID:
        return is_request_id(value.decode("latin-1"))
    return name not in OF_SERVE


def _with_one_id(headers: list[tuple[bytes, bytes]]) -> list[tuple[Any, Any]]:
    """The first one is ours."""
    ids = [field for field in headers if field[0] == REQUEST_ID]
    return [field for field in headers if field[0] != REQUEST_ID] + ids[:1]
