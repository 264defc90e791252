"""A client for Forklift's native routes. Needs ``requests`` and nothing else of this package.

    client = Client("http://127.0.0.1:5000")
    client.complete("def add(a, b):", max_new_tokens=16).text
    for piece in client.complete("def add(a, b):", stream=True):
        print(piece.text, end="")

Options go by the server's own names (``temperature``, ``stop``, ``seed``, ``n``, ...; see docs/api.md).

    ClientError
    ├── NoAnswerError                  no connection, or none in time
    ├── StreamEndedError               a stream broke off
    └── RequestError                   the server's answer; has status, code, param, request_id
        ├── BadRequestError            400: InvalidJsonError, InvalidParameterError,
        │                              UnsupportedParameterError, ContextLengthError
        ├── UnauthorizedError          401
        ├── NotFoundError              404: ModelNotFoundError
        ├── MethodNotAllowedError      405
        ├── BodyTimeoutError           408
        ├── BodyTooLargeError          413
        ├── UnsupportedMediaTypeError  415
        ├── InternalError              500
        ├── UnavailableError           503: OverloadedError, LoadingError, LoadFailedError, InsufficientMemoryError,
        │                              ShuttingDownError
        └── DeadlineError              504: QueueTimeoutError, RequestTimeoutError
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, overload

import requests

RETRIED = frozenset({408, 429, 502, 503})
CONNECT_TIMEOUT_S = 10.0
# The server is told the limit and answers 504 at it: that answer should still arrive.
TIMEOUT_GRACE_S = 5.0
FIRST_PAUSE_S = 0.5


class ClientError(Exception):
    """Base of everything that this module raises on purpose."""


class NoAnswerError(ClientError):
    """The server could not be reached, or did not answer in time."""


class StreamEndedError(ClientError):
    """A stream ended without its ``[DONE]``."""


class RequestError(ClientError):
    """The server answered that the request failed."""

    status: int = 0
    code: str = ""

    def __init__(self, message: str, *, status: int, code: str, param: str | None, request_id: str | None):
        super().__init__(message)
        self.message = message
        self.status, self.code = status, code
        self.param, self.request_id = param, request_id


class BadRequestError(RequestError):
    status = 400
    code = "bad_request"


class InvalidJsonError(BadRequestError):
    code = "invalid_json"


class InvalidParameterError(BadRequestError):
    code = "invalid_parameter"


class UnsupportedParameterError(BadRequestError):
    code = "unsupported_parameter"


class ContextLengthError(BadRequestError):
    code = "context_length_exceeded"


class UnauthorizedError(RequestError):
    status = 401
    code = "invalid_api_key"


class NotFoundError(RequestError):
    status = 404
    code = "route_not_found"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class MethodNotAllowedError(RequestError):
    status = 405
    code = "method_not_allowed"


class BodyTimeoutError(RequestError):
    status = 408
    code = "body_timeout"


class BodyTooLargeError(RequestError):
    status = 413
    code = "body_too_large"


class UnsupportedMediaTypeError(RequestError):
    status = 415
    code = "unsupported_media_type"


class InternalError(RequestError):
    status = 500
    code = "internal_error"


class UnavailableError(RequestError):
    status = 503
    code = "unavailable"


class OverloadedError(UnavailableError):
    code = "overloaded"


class LoadingError(UnavailableError):
    code = "loading"


class LoadFailedError(UnavailableError):
    code = "load_failed"


class InsufficientMemoryError(UnavailableError):
    code = "insufficient_memory"


class ShuttingDownError(UnavailableError):
    code = "shutting_down"


class DeadlineError(RequestError):
    status = 504
    code = "timeout"


class QueueTimeoutError(DeadlineError):
    code = "queue_timeout"


class RequestTimeoutError(DeadlineError):
    code = "request_timeout"


@dataclass(frozen=True)
class Usage:
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds since the server took the request in."""

    queue_ms: float
    ttft_ms: float
    total_ms: float


@dataclass(frozen=True)
class Token:
    """A token, its log-probability, and the best tokens in its place."""

    id: int
    token: str
    logprob: float
    bytes: bytes
    top: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of several completions."""

    text: str
    finish_reason: str
    logprobs: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Completion:
    """A whole answer. ``choices`` holds every completion where ``n`` is above 1 (not in streams);
    ``history`` the rounds of a chat; ``infills`` what fills each hole, where ``text`` is everything
    (of a stream: what fills the hole)."""

    text: str
    finish_reason: str
    usage: Usage
    timings: Timings
    model: str
    request_id: str
    recordid: str | int | None = None
    logprobs: tuple[Token, ...] = ()
    choices: tuple[Choice, ...] = ()
    infills: tuple[str, ...] = ()
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What came in a stream for the completion of this index; the last one has no text but ``answer``."""

    text: str
    index: int = 0
    logprobs: tuple[Token, ...] = ()
    answer: Completion | None = None


@dataclass(frozen=True)
class Proposal:
    """A token for a mask."""

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True)
class Embeddings:
    """A vector for each input."""

    vectors: list[list[float]]
    model: str
    prompt_tokens: int


class Client:
    """One server. ``timeout_s`` bounds an attempt, on both sides; ``max_retries`` more are made where the
    server advises it or cannot be reached, none of them after a pause above ``max_pause_s``."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 300.0,
        max_retries: int = 2,
        max_pause_s: float = 60.0,
    ):
        self._url = url.rstrip("/")
        self._headers = {"X-Request-Timeout-S": f"{timeout_s:.3f}"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_s, self._max_retries, self._max_pause_s = timeout_s, max_retries, max_pause_s

    @overload
    def complete(self, prompt: str, *, stream: Literal[False] = False, **options: Any) -> Completion: ...
    @overload
    def complete(self, prompt: str, *, stream: Literal[True], **options: Any) -> Iterator[Piece]: ...
    def complete(self, prompt: str, *, stream: bool = False, **options: Any) -> Completion | Iterator[Piece]:
        """Continues a text."""
        return self._generate("/complete", "completion", {"prompt": prompt, **options}, stream)

    @overload
    def chat(self, prompt: str | None = None, *, stream: Literal[False] = False, **options: Any) -> Completion: ...
    @overload
    def chat(self, prompt: str | None = None, *, stream: Literal[True], **options: Any) -> Iterator[Piece]: ...
    def chat(self, prompt: str | None = None, *, stream: bool = False, **options: Any) -> Completion | Iterator[Piece]:
        """Answers ``prompt`` after ``history``, or the last of ``messages``."""
        return self._generate("/chat", "response", {"prompt": prompt, **options}, stream)

    @overload
    def infill(self, *parts: str, stream: Literal[False] = False, **options: Any) -> Completion: ...
    @overload
    def infill(self, *parts: str, stream: Literal[True], **options: Any) -> Iterator[Piece]: ...
    def infill(self, *parts: str, stream: bool = False, **options: Any) -> Completion | Iterator[Piece]:
        """Fills the holes between ``parts``; a single hole can be streamed."""
        return self._generate("/infill", "infill" if stream else "text", {"parts": parts, **options}, stream)

    def fill_mask(self, text: str, top_k: int = 5, *, model: str | None = None) -> list[list[Proposal]]:
        """Proposals for each mask of ``text``, best first."""
        found = self._post("/fill-mask", {"text": text, "top_k": top_k, "model": model}).json()
        masks = found if found and isinstance(found[0], list) else [found]
        return [[Proposal(**one) for one in proposals] for proposals in masks]

    def embed(self, inputs: str | list[str], *, model: str | None = None) -> Embeddings:
        """A vector for each text."""
        found = self._post("/v1/embeddings", {"input": inputs, "model": model}).json()
        vectors = [one["embedding"] for one in found["data"]]
        return Embeddings(vectors, found["model"], found["usage"]["prompt_tokens"])

    def _generate(self, path: str, key: str, body: dict[str, Any], stream: bool) -> Completion | Iterator[Piece]:
        response = self._post(path, {**body, "stream": stream}, stream=stream)
        return _pieces(response, key) if stream else _completion(response.json(), key)

    def _post(self, path: str, body: dict[str, Any], stream: bool = False) -> requests.Response:
        """The answer, after as many attempts as are allowed. Raises ``RequestError`` or ``NoAnswerError``."""
        for attempt in range(self._max_retries + 1):
            is_last = attempt == self._max_retries
            try:
                response = self._send(path, body, stream)
            except requests.ReadTimeout as failure:
                raise NoAnswerError(f"no answer in time: {failure}") from failure
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as failure:
                if is_last:
                    raise NoAnswerError(f"cannot reach the server: {failure}") from failure
                time.sleep(_own_pause_s(attempt))
                continue
            if response.ok:
                return response
            pause_s = retry_pause_s(response, attempt)
            if is_last or pause_s is None or pause_s > self._max_pause_s:
                raise _error_of(response)
            response.close()
            time.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, path: str, body: dict[str, Any], stream: bool) -> requests.Response:
        limits = (CONNECT_TIMEOUT_S, self._timeout_s + TIMEOUT_GRACE_S)
        return requests.post(self._url + path, json=body, headers=self._headers, stream=stream, timeout=limits)


def retry_pause_s(response: requests.Response, attempt: int) -> float | None:
    """Seconds after which the server advises to ask again; None where it should not be asked again."""
    advice = response.headers.get("X-Should-Retry")
    if advice == "false" or (advice != "true" and response.status_code not in RETRIED):
        return None
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else _own_pause_s(attempt)


def _own_pause_s(attempt: int) -> float:
    """Doubles with each attempt; by chance shorter, so that many clients do not come back together."""
    return float(FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.0))


def _error_of(response: requests.Response) -> RequestError:
    try:
        return make_error(response.json(), response.status_code)
    except (ValueError, KeyError, TypeError):
        return make_error({"error": {"message": response.text[:200] or "no text"}}, response.status_code)


def make_error(body: dict[str, Any], status: int | None = None) -> RequestError:
    """The error of an envelope: of its code's class, else of its status's."""
    error = body["error"]
    code = error.get("code") or ""
    known = list(_classes(RequestError))
    kinds = [one for one in known if one.code == code] or [one for one in known if one.status == status]
    kind = kinds[0] if kinds else RequestError
    param, request_id = error.get("param"), body.get("request_id")
    return kind(error["message"], status=status or kind.status, code=code, param=param, request_id=request_id)


def _classes(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _classes(one)


def _pieces(response: requests.Response, key: str) -> Iterator[Piece]:
    """The pieces of a stream; leaving the loop early closes the connection, which stops the server's work."""
    texts: list[str] = []
    with response:
        for event in _events(response):
            if "error" in event:
                raise make_error(event)
            is_last = "usage" in event
            index = event.get("index", 0)
            if index == 0:
                texts.append(event[key])
            text = "".join(texts)
            more = {"infills": [text]} if key == "infill" else {}
            answer = _completion({**event, **more, key: text}, key) if is_last else None
            yield Piece(event[key], index, _tokens(event.get("logprobs")), answer)


def _events(response: requests.Response) -> Iterator[dict[str, Any]]:
    # Without chunks, a larger read would wait until that much has come.
    size = None if getattr(response.raw, "chunked", False) else 1
    try:
        for line in response.iter_lines(chunk_size=size, delimiter=b"\n"):
            if line == b"data: [DONE]":
                return
            if line.startswith(b"data: "):
                yield json.loads(line[6:])
    except requests.RequestException as failure:
        raise StreamEndedError(f"the stream broke off: {failure}") from failure
    raise StreamEndedError("the stream ended early")


def _completion(body: dict[str, Any], key: str) -> Completion:
    usage = body["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    timings = body["timings"]
    choices = [Choice(one[key], one["finish_reason"], _tokens(one.get("logprobs"))) for one in body.get("choices", [])]
    return Completion(
        text=body[key],
        finish_reason=body["finish_reason"],
        usage=Usage(usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"], cached),
        timings=Timings(timings["queue_ms"], timings["ttft_ms"], timings["total_ms"]),
        model=body["model"],
        request_id=body["request_id"],
        recordid=body.get("recordid"),
        logprobs=_tokens(body.get("logprobs")),
        choices=tuple(choices),
        infills=tuple(body.get("infills", ())),
        history=tuple((question, answer) for question, answer in body.get("history", ())),
    )


def _tokens(found: list[dict[str, Any]] | None) -> tuple[Token, ...]:
    return tuple(
        Token(one["id"], one["token"], one["logprob"], bytes(one["bytes"]), _tokens(one.get("top_logprobs")))
        for one in found or ()
    )
