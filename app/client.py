"""A client for Forklift's native routes. Needs ``requests`` and nothing else of this package.

    client = Client("http://127.0.0.1:5000")
    client.complete("def add(a, b):", max_new_tokens=16).text
    for piece in client.complete("def add(a, b):", stream=True):
        print(piece.text, end="")

Options go by the server's own names (``temperature``, ``stop``, ``seed``, ``n``, ...; see docs/api.md).

    ClientError
    ├── SetupError                     the URL, key, proxy, certificates or options given cannot be used
    ├── NoAnswerError                  no connection, or no whole answer in time
    ├── ForeignAnswerError             an answer, but none that a Forklift server gives
    ├── StreamEndedError               a stream broke off
    └── RequestError                   the server's answer; has status, code, param, request_id
        ├── BadRequestError            400: InvalidJsonError, InvalidParameterError,
        │                              UnsupportedParameterError, ContextLengthError
        ├── UnauthorizedError          401
        ├── ForbiddenError             403: a page of another origin asked
        ├── MisdirectedError           421: the server does not answer to this host's name
        ├── NotFoundError              404: ModelNotFoundError
        ├── MethodNotAllowedError      405
        ├── BodyTimeoutError           408
        ├── BodyTooLargeError          413
        ├── UnsupportedMediaTypeError  415
        ├── InternalError              500
        ├── UnavailableError           503: OverloadedError, LoadingError, LoadFailedError, InsufficientMemoryError,
        │                              ShuttingDownError
        └── DeadlineError              504: QueueTimeoutError, RequestTimeoutError

A server on this machine (``localhost``, ``127.0.0.0/8``, ``::1``) is asked past any proxy; redirects are not followed,
since a key would follow them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, overload
from urllib.parse import urlsplit, urlunsplit

import requests

RETRIED = frozenset({408, 429, 502, 503})
# What asking again does not mend, also where a server does not say so.
NOT_RETRIED = frozenset({"insufficient_memory"})
CONNECT_TIMEOUT_S = 10.0
# The server is told the limit and answers 504 at it: that answer should still arrive.
TIMEOUT_GRACE_S = 5.0
FIRST_PAUSE_S = 0.5
# Of a whole answer or stream, decoded; and of what is read of an error.
MOST_BYTES = 256 * 2**20
MOST_ERROR_BYTES = 64 * 2**10
MOST_TEXT = 300
# Shorter keys stand in ordinary words.
LEAST_HIDDEN = 6
PIECE_BYTES = 65536
LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")
NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")
NOT_IN_KEY = re.compile(r"[\x00-\x1f\x7f]")


class ClientError(Exception):
    """Base of everything that this module raises on purpose."""


class SetupError(ClientError):
    """What was given cannot be used: nothing was sent."""


class NoAnswerError(ClientError):
    """The server could not be reached, or the whole answer did not come in time."""


class ForeignAnswerError(ClientError):
    """What answered is no Forklift server, or something between changed its answer."""


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


class ConstraintTooCostlyError(BadRequestError):
    code = "constraint_too_costly"


class UnauthorizedError(RequestError):
    status = 401
    code = "invalid_api_key"


class ForbiddenError(RequestError):
    status = 403
    code = "cross_site_request"


class MisdirectedError(RequestError):
    status = 421
    code = "host_not_allowed"


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
class LabelScore:
    """A label and how well it fits."""

    label: str
    score: float


@dataclass(frozen=True)
class RankedDocument:
    """A document by its place in the request, and how well it fits the query."""

    index: int
    score: float


@dataclass(frozen=True)
class Entity:
    """What is named in a text, from the character ``start`` to ``end``; None where the server cannot tell."""

    kind: str
    score: float
    word: str
    start: int | None
    end: int | None


@dataclass(frozen=True)
class FoundAnswer:
    """The characters of a context that answer a question."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Embeddings:
    """A vector for each input."""

    vectors: list[list[float]]
    model: str
    prompt_tokens: int


class Client:
    """One server. ``timeout_s`` bounds a whole call on both sides: all attempts, the pauses between them, a stream to
    its end. ``max_retries`` more attempts are made where the server advises it or cannot be reached, none of them after
    a pause above ``max_pause_s``. Raises ``SetupError`` for a URL or key that cannot be used."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 300.0,
        max_retries: int = 2,
        max_pause_s: float = 60.0,
    ):
        self._endpoint = Endpoint(url, api_key)
        self._timeout_s, self._max_retries, self._max_pause_s = timeout_s, max_retries, max_pause_s

    def __repr__(self) -> str:
        return f"Client({self._endpoint.shown_url!r})"

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
        """Fill the holes between ``parts``; a single hole can be streamed."""
        return self._generate("/infill", "infill" if stream else "text", {"parts": parts, **options}, stream)

    def fill_mask(self, text: str, top_k: int = 5, *, model: str | None = None) -> list[list[Proposal]]:
        """Proposals for each mask of ``text``, best first."""
        found = self._ask("/fill-mask", {"text": text, "top_k": top_k, "model": model})
        return [[_proposal(one) for one in proposals] for proposals in _by_mask(found)]

    def classify(self, text: str | list[str], top_k: int = 1, **options: Any) -> list[list[LabelScore]]:
        """The labels of each text, best first."""
        found = self._ask("/classify", {"text": text, "top_k": top_k, **options})
        return [[_label_score(one) for one in _items(labels)] for labels in _by_mask(found)]

    def translate(
        self, text: str | list[str], tgt_lang: str | None = None, src_lang: str | None = None, **options: Any
    ) -> list[str]:
        """Each text in another language, named as the model names it."""
        body = {"text": text, "src_lang": src_lang, "tgt_lang": tgt_lang, **options}
        return self._texts("/translate", "translation", body)

    def summarize(self, text: str | list[str], **options: Any) -> list[str]:
        """Each text in fewer words."""
        return self._texts("/summarize", "summary", {"text": text, **options})

    def rerank(
        self, query: str, documents: list[str], top_n: int | None = None, **options: Any
    ) -> list[RankedDocument]:
        """The documents in the order in which they fit the query."""
        found = self._ask("/rerank", {"query": query, "documents": documents, "top_n": top_n, **options})
        return [_ranked_document(one) for one in _items(_require(found, dict, "the answer").get("results"))]

    def zero_shot(self, text: str, labels: list[str], *, multi_label: bool = False, **options: Any) -> list[LabelScore]:
        """How well labels that the model was not trained with fit a text, best first."""
        body = {"text": text, "candidate_labels": labels, "multi_label": multi_label, **options}
        found = self._ask("/zero-shot", body)
        answer = _require(found, dict, "the answer")
        pairs = zip(_items(answer.get("labels")), _items(answer.get("scores")), strict=False)
        return [LabelScore(_require(label, str, "a label"), _number(score)) for label, score in pairs]

    def entities(self, text: str, aggregation_strategy: str = "simple", **options: Any) -> list[Entity]:
        """What is named in a text."""
        found = self._ask("/entities", {"text": text, "aggregation_strategy": aggregation_strategy, **options})
        return [_entity(one) for one in _items(found)]

    def answer(self, question: str, context: str, top_k: int = 1, **options: Any) -> list[FoundAnswer]:
        """The characters of ``context`` that answer the question, best first."""
        found = self._ask("/answer", {"question": question, "context": context, "top_k": top_k, **options})
        return [_found_answer(one) for one in (found if isinstance(found, list) else [found])]

    def embed(self, inputs: str | list[str], *, model: str | None = None, **options: Any) -> Embeddings:
        """A vector for each text."""
        found = self._ask("/v1/embeddings", {"input": inputs, "model": model, **options})
        vectors = [[_number(one) for one in _list(item, "embedding")] for item in _list(found, "data")]
        return Embeddings(vectors, _text(found, "model"), _count(_member(found, "usage"), "prompt_tokens"))

    def _texts(self, path: str, key: str, body: dict[str, Any]) -> list[str]:
        made = _require(self._ask(path, body), dict, "the answer").get(key)
        return [_require(one, str, key) for one in (made if isinstance(made, list) else [made])]

    def _generate(self, path: str, key: str, body: dict[str, Any], stream: bool) -> Completion | Iterator[Piece]:
        if stream:
            return _pieces(self._post(path, {**body, "stream": True}), key)
        return _completion(self._ask(path, {**body, "stream": False}), key)

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON of a whole answer. Raises ``ClientError``."""
        with self._post(path, body, is_whole=True) as exchange:
            found = exchange.whole().json()
        if isinstance(found, dict) and found.get("error") is not None:
            raise make_error(found, exchange.status)
        return found

    def _post(self, path: str, body: dict[str, Any], is_whole: bool = False) -> Exchange:
        """An answer of status 200, after as many attempts as are allowed. Raises ``ClientError``."""
        data = _json_bytes(body)
        waited_s = 0.0
        for attempt in range(self._max_retries + 1):
            begun_s = time.monotonic()
            try:
                exchange = self._send(path, data, self._timeout_s - waited_s)
                if exchange.status == 200:
                    return exchange.read() if is_whole else exchange
                error, pause_s = _refusal(exchange, attempt)
            except NoAnswerError as failure:
                error = failure
                pause_s = None if isinstance(failure, LateError) else _own_pause_s(attempt)
            waited_s += time.monotonic() - begun_s
            if attempt == self._max_retries or not self._may_wait(pause_s, waited_s):
                raise error
            time.sleep(pause_s or 0.0)
            waited_s += pause_s or 0.0
        raise AssertionError("the last attempt returns or raises")

    def _may_wait(self, pause_s: float | None, waited_s: float) -> bool:
        return pause_s is not None and pause_s <= self._max_pause_s and waited_s + pause_s < self._timeout_s

    def _send(self, path: str, data: bytes, left_s: float) -> Exchange:
        headers = {"Content-Type": "application/json", "X-Request-Timeout-S": f"{left_s:.3f}"}
        return self._endpoint.open("POST", path, left_s + min(TIMEOUT_GRACE_S, left_s / 2), data, headers)


def _refusal(exchange: Exchange, attempt: int) -> tuple[ClientError, float | None]:
    """The error of an answer that is none of ours to use, and after which pause to ask again."""
    with exchange:
        answer = exchange.whole(MOST_ERROR_BYTES)
    if answer.status < 400:
        return ForeignAnswerError(answer.oddity()), None
    error = _error_of(answer, exchange.hidden)
    return error, None if error.code in NOT_RETRIED else retry_pause_s(answer, attempt)


def retry_pause_s(answer: Answer, attempt: int) -> float | None:
    """Seconds after which the server advises to ask again; None where it should not be asked again."""
    advice = answer.headers.get("X-Should-Retry")
    if advice == "false" or (advice != "true" and answer.status not in RETRIED):
        return None
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else _own_pause_s(attempt)


def _own_pause_s(attempt: int) -> float:
    """Doubles with each attempt; by chance shorter, so that many clients do not come back together."""
    return float(FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.0))


def _json_bytes(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as failure:
        raise SetupError(f"the options cannot be written as JSON: {failure}") from None


def _error_of(answer: Answer, hidden: Callable[[str], str]) -> RequestError:
    try:
        return make_error(answer.json(), answer.status, hidden)
    except ForeignAnswerError:
        return make_error({"error": {"message": answer.beginning()}}, answer.status)


def make_error(body: Any, status: int | None = None, hidden: Callable[[str], str] = str) -> RequestError:
    """The error of an envelope: of its code's class, else of its status's. Other servers' forms are read as well.

    ``hidden`` takes the key out of the message.
    """
    envelope = body if isinstance(body, dict) else {}
    error = envelope.get("error") or envelope.get("detail") or envelope.get("message")
    fields = error if isinstance(error, dict) else {"message": error}
    code, param, request_id = (
        _optional_text(one) for one in (fields.get("code"), fields.get("param"), envelope.get("request_id"))
    )
    known = list(_classes(RequestError))
    kinds = [one for one in known if one.code == code] or [one for one in known if one.status == status]
    kind = kinds[0] if kinds else RequestError
    message = _optional_text(fields.get("message")) or f"an error without a message: {_shortened(json.dumps(body))}"
    return kind(hidden(message), status=status or kind.status, code=code or "", param=param, request_id=request_id)


def _optional_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def _classes(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _classes(one)


def _pieces(exchange: Exchange, key: str) -> Iterator[Piece]:
    """The pieces of a stream; leaving the loop early closes the connection, which stops the server's work."""
    texts: list[str] = []
    with exchange:
        for event in _events(exchange):
            if event.get("error") is not None:
                raise make_error(event, hidden=exchange.hidden)
            is_last = "usage" in event
            index = _count(event, "index") if "index" in event else 0
            piece = _text(event, key)
            if index == 0:
                texts.append(piece)
            text = "".join(texts) if is_last else ""
            more = {"infills": [text]} if key == "infill" else {}
            answer = _completion({**event, **more, key: text}, key) if is_last else None
            yield Piece(piece, index, _tokens(event), answer)


def _events(exchange: Exchange) -> Iterator[dict[str, Any]]:
    has_events = False
    for data in _event_data(exchange.pieces()):
        has_events = True
        if data == b"[DONE]":
            return
        event = _parsed(data, "an event of the stream")
        if not isinstance(event, dict):
            raise ForeignAnswerError(f"an event of the stream is no JSON object: {_shortened(repr(event))}")
        yield event
    if not has_events:
        exchange.require_events()
    raise StreamEndedError("the stream ended early")


def _event_data(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The data of each event (WHATWG's HTML, 9.2.6); of the last one also where no blank line ends it."""
    data: list[bytes] = []
    for line in _lines(pieces):
        if not line and data:
            yield b"\n".join(data)
            data = []
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        if data == [b"[DONE]"]:
            break
    if data:
        yield b"\n".join(data)


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines that end as the format allows. A piece may end anywhere; each byte is joined once."""
    held: list[bytes] = []
    for piece in pieces:
        if held and held[-1].endswith(b"\r"):
            piece = held.pop() + piece
        first, *others = LINE_END.split(piece)
        held.append(first)
        for line in others:
            yield b"".join(held)
            held = [line]
    yield b"".join(held).removesuffix(b"\r")


def _completion(body: Any, key: str) -> Completion:
    usage, timings = _member(body, "usage"), _member(body, "timings")
    cached = _count(_member(usage, "prompt_tokens_details"), "cached_tokens")
    recordid = body.get("recordid")
    return Completion(
        text=_text(body, key),
        finish_reason=_text(body, "finish_reason"),
        usage=Usage(
            _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"), _count(usage, "total_tokens"), cached
        ),
        timings=Timings(_ms(timings, "queue_ms"), _ms(timings, "ttft_ms"), _ms(timings, "total_ms")),
        model=_text(body, "model"),
        request_id=_text(body, "request_id"),
        recordid=recordid if isinstance(recordid, str | int) else None,
        logprobs=_tokens(body),
        choices=tuple(
            Choice(_text(one, key), _text(one, "finish_reason"), _tokens(one)) for one in _list(body, "choices")
        ),
        infills=tuple(_require(one, str, "infills") for one in _list(body, "infills")),
        history=tuple(_round(one) for one in _list(body, "history")),
    )


def _round(found: Any) -> tuple[str, str]:
    if not isinstance(found, list) or len(found) != 2:
        _foreign("history", found)
    return _require(found[0], str, "history"), _require(found[1], str, "history")


def _tokens(body: Any, name: str = "logprobs") -> tuple[Token, ...]:
    return tuple(
        Token(
            _count(one, "id"),
            _text(one, "token"),
            _number(one.get("logprob")),
            _bytes(_list(one, "bytes")),
            _tokens(one, "top_logprobs"),
        )
        for one in _list(body, name)
    )


def _bytes(values: list[Any]) -> bytes:
    if not all(type(value) is int and 0 <= value < 256 for value in values):
        _foreign("bytes", values)
    return bytes(values)


def _by_mask(found: Any) -> list[Any]:
    """One list of proposals per mask."""
    if not isinstance(found, list):
        _foreign("the answer", found)
    return found if found and isinstance(found[0], list) else [found]


def _proposal(found: Any) -> Proposal:
    one = _require(found, dict, "a proposal")
    score, token = _number(one.get("score")), _count(one, "token")
    return Proposal(score, token, _text(one, "token_str"), _text(one, "sequence"))


def _items(found: Any) -> list[Any]:
    items: list[Any] = _require(found, list, "the answer")
    return items


def _label_score(found: Any) -> LabelScore:
    one = _require(found, dict, "a label")
    return LabelScore(_text(one, "label"), _number(one.get("score")))


def _ranked_document(found: Any) -> RankedDocument:
    one = _require(found, dict, "a result")
    return RankedDocument(_count(one, "index"), _number(one.get("relevance_score")))


def _entity(found: Any) -> Entity:
    one = _require(found, dict, "an entity")
    kind = _text(one, "entity_group" if "entity_group" in one else "entity")
    start, end = (None if one.get(name) is None else _count(one, name) for name in ("start", "end"))
    return Entity(kind, _number(one.get("score")), _text(one, "word"), start, end)


def _found_answer(found: Any) -> FoundAnswer:
    one = _require(found, dict, "an answer")
    return FoundAnswer(_text(one, "answer"), _number(one.get("score")), _count(one, "start"), _count(one, "end"))


def _member(body: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = _require(_require(body, dict, "the answer").get(name), dict, name)
    return found


def _text(body: Any, name: str) -> str:
    found: str = _require(_require(body, dict, "the answer").get(name), str, name)
    return found


def _count(body: Any, name: str) -> int:
    found: int = _require(_require(body, dict, "the answer").get(name), int, name)
    return found


def _ms(timings: dict[str, Any], name: str) -> float:
    return _number(timings.get(name))


def _number(value: Any) -> float:
    found: float = _require(value, (int, float), "a number")
    return found


def _list(body: Any, name: str) -> list[Any]:
    """Empty where the field is left out or null."""
    found = _require(body, dict, "the answer").get(name)
    return [] if found is None else list(_require(found, list, name))


def _require(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    """``value``. A server that answers another kind of value than ours is not ours."""
    if not isinstance(value, kind) or isinstance(value, bool):
        _foreign(name, value)
    return value


def _foreign(name: str, value: Any) -> NoReturn:
    raise ForeignAnswerError(f"this is no answer of a Forklift server: {name} is {_shortened(repr(value)[:1000])}")


def _parsed(data: bytes, what: str) -> Any:
    """JSON, without NaN and infinities. Raises ``ForeignAnswerError``."""
    try:
        # `int` refuses NaN and Infinity, which JSON has not.
        return json.loads(data.decode("utf-8-sig"), parse_constant=int)
    except (ValueError, RecursionError):
        raise ForeignAnswerError(f"{what} is not JSON: {_beginning(data)}") from None


def _beginning(data: bytes) -> str:
    """The first line of what came instead."""
    lines = data[: 4 * MOST_TEXT].decode("utf-8", "replace").strip().splitlines()
    return _shortened(lines[0]) if lines else "it is empty"


class LateError(NoAnswerError):
    """The time of the call is over: it is not asked again."""


@dataclass(frozen=True)
class Answer:
    """A whole answer, whatever it is."""

    url: str
    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """Raise ``ForeignAnswerError``."""
        return _parsed(self.data, f"the answer of {self.url}")

    def beginning(self) -> str:
        """What it says, for people."""
        return _beginning(self.data) if self.data.strip() else "no text"

    def oddity(self) -> str:
        """What is wrong with an answer that is neither 200 nor an error."""
        if "Location" in self.headers:
            target = shown_url(_shortened(self.headers["Location"]))
            return f"{self.url} answered {self.status}: it redirects to {target}; give that address"
        return f"{self.url} answered {self.status}, as no Forklift server does: {self.beginning()}"


class Endpoint:
    """Where a server is and with which key it is asked. Raises ``SetupError``. Any number of threads may use it."""

    def __init__(self, url: str, api_key: str | None = None):
        self.url = _checked_url(url)
        self.shown_url = shown_url(self.url)
        self._authorize = None if not (api_key and api_key.strip()) else _Bearer(api_key)

    def __repr__(self) -> str:
        return f"Endpoint({self.shown_url!r})"

    def open(
        self, method: str, path: str, limit_s: float, data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Exchange:
        """Send a request; returns when head and status are there. Raises ``SetupError``, ``NoAnswerError``.

        All that comes of it ends within ``limit_s``.
        """
        deadline = _Deadline(limit_s)
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(deadline))
        exchange = Exchange(self, self.shown_url + path, session, deadline)
        exchange.begin(
            lambda: session.request(
                method,
                self.url + path,
                data=data,
                # What is not asked for need not be unpacked, and a drop of it can be an ocean.
                headers={"Accept-Encoding": "identity", **(headers or {})},
                auth=self._authorize,
                stream=True,
                allow_redirects=False,
                timeout=(min(CONNECT_TIMEOUT_S, limit_s), limit_s),
                proxies={"http": None, "https": None, "all": None} if is_loopback(self.url) else None,  # type: ignore[dict-item]
            )
        )
        return exchange

    def hidden(self, text: str) -> str:
        """``text`` without the key, which a library, a proxy or a server may repeat."""
        return text if self._authorize is None else self._authorize.hidden(text)

    def proxy(self) -> str | None:
        """The proxy that the environment puts before the server, without its password."""
        if is_loopback(self.url):
            return None
        with suppress(ValueError):
            found = requests.utils.select_proxy(self.url, requests.utils.get_environ_proxies(self.url))
            return shown_url(found) if found else None
        return None


class Exchange:
    """One request and its answer, bounded in time and size; a context that closes the connection."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, endpoint: Endpoint, shown: str, session: requests.Session, deadline: _Deadline):
        self._endpoint, self._shown, self._session, self._deadline = endpoint, shown, session, deadline
        self._response: requests.Response | None = None
        self._data: bytes | None = None

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A stream that nobody ever read from.
        self.close()

    def close(self) -> None:
        """Leave the connection; may be called again."""
        self._deadline.close()
        if self._response is not None:
            self._response.close()
        self._session.close()

    def begin(self, send: Callable[[], requests.Response]) -> None:
        """Get the head. Raises ``SetupError``, ``NoAnswerError``."""
        try:
            self._response = send()
        except Exception as failure:
            self.close()
            raise self._error(failure) from None
        except BaseException:
            self.close()
            raise
        self.status, self.headers = self._response.status_code, self._response.headers

    def pieces(self, size: int | None = None) -> Iterator[bytes]:
        """The body as it comes. Raises ``ClientError``: ``StreamEndedError`` where it breaks off."""
        assert self._response is not None
        # Without chunks, a larger read would wait until that much has come.
        size = size or (None if getattr(self._response.raw, "chunked", False) else 1)
        num_bytes = 0
        try:
            for piece in self._response.iter_content(size):
                num_bytes += len(piece)
                if num_bytes > MOST_BYTES:
                    raise ForeignAnswerError(f"the answer of {self._shown} is longer than {MOST_BYTES} bytes")
                yield piece
        except ClientError:
            raise
        except Exception as failure:
            raise self._error(failure, StreamEndedError) from None
        if self._deadline.is_over:
            raise self._late()

    def read(self) -> Exchange:
        """Fetch the whole body now: ``whole`` then has it."""
        try:
            self.whole()
        except StreamEndedError as failure:
            self.close()
            raise NoAnswerError(str(failure)) from None
        except BaseException:
            self.close()
            raise
        return self

    def whole(self, most_bytes: int = MOST_BYTES) -> Answer:
        """The answer, of which no more than ``most_bytes`` are read."""
        if self._data is None:
            kept, left = [], most_bytes
            for piece in self.pieces(PIECE_BYTES):
                kept.append(piece[:left])
                left -= len(piece)
                if left <= 0:
                    break
            data = b"".join(kept)
            self._data = data if self.status == 200 else self._endpoint.hidden(data.decode("utf-8", "replace")).encode()
        return Answer(self._shown, self.status, self.headers, self._data)

    def hidden(self, text: str) -> str:
        """``text`` without the key."""
        return self._endpoint.hidden(text)

    def require_events(self) -> None:
        """What ended without any event was none where it is of another kind. Raises ``ForeignAnswerError``."""
        kind = str(self.headers.get("Content-Type", ""))
        if kind and not kind.startswith("text/event-stream"):
            raise ForeignAnswerError(f"{self._shown} answered {_shortened(kind)} in place of a stream of events")

    def _late(self) -> LateError:
        return LateError(f"{self._shown}: no whole answer within {self._deadline.limit_s:g} s")

    def _error(self, failure: Exception, broken: type[ClientError] = NoAnswerError) -> ClientError:
        """What a library raised, as one line that names the server, and the proxy where there is one."""
        if self._deadline.is_over or isinstance(failure, requests.ReadTimeout):
            return self._late()
        said = self._endpoint.hidden(_shortened(reason(failure)))
        proxy = self._endpoint.proxy()
        way = self._endpoint.shown_url
        way += f" through the proxy {proxy} (http_proxy, https_proxy or all_proxy)" if proxy else ""
        if isinstance(failure, requests.exceptions.ContentDecodingError):
            return ForeignAnswerError(f"the answer of {way} cannot be unpacked: {said}")
        if isinstance(failure, requests.ConnectionError | requests.exceptions.ChunkedEncodingError | requests.Timeout):
            what = "cannot reach" if broken is NoAnswerError else "the connection broke off:"
            return broken(f"{what} {way}: {said}")
        return SetupError(f"cannot ask {way}: {said}")


class _Bearer:
    """Sets the key, in UTF-8, where ``requests`` lets its own ``auth`` win over ``~/.netrc``. Shows it nowhere."""

    def __init__(self, key: str):
        self._key = key.strip()
        if NOT_IN_KEY.search(self._key):
            raise SetupError("the API key holds a line break or another control character")
        try:
            self._value = b"Bearer " + self._key.encode()
        except UnicodeEncodeError:
            raise SetupError("the API key is not text in UTF-8") from None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value  # type: ignore[assignment]
        return request

    def __repr__(self) -> str:
        return "Bearer [key]"

    def hidden(self, text: str) -> str:
        if len(self._key) < LEAST_HIDDEN:
            return text
        for one in {self._key, self._key.encode().decode("latin-1"), repr(self._key)[1:-1]}:
            text = text.replace(one, "[key]")
        return text


class _Deadline:
    """Ends a request's connection when its time is over.

    A timeout of ``requests`` bounds each read: a server that sends a byte per second is never late. A thread waits, and
    shuts down a second descriptor of the socket, which wakes whoever reads.
    """

    def __init__(self, limit_s: float):
        self.limit_s = limit_s
        self.is_over = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(min(max(limit_s, 0.0), threading.TIMEOUT_MAX), self._end)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(sock.fileno())))
        if self.is_over:
            self._end()

    def close(self) -> None:
        self._timer.cancel()
        with self._lock:
            for one in self._sockets:
                one.close()
            self._sockets = []

    def _end(self) -> None:
        self.is_over = True
        with self._lock:
            for one in self._sockets:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


class _Adapter(requests.adapters.HTTPAdapter):
    """Shows each new connection to the deadline."""

    def __init__(self, deadline: _Deadline):
        super().__init__()
        self._deadline = deadline

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        pool.ConnectionCls = _watched(pool.ConnectionCls, self._deadline)
        return pool


def _watched(kind: Any, deadline: _Deadline) -> Any:
    """``kind`` of connection, whose socket is watched before anything is read from it, a TLS handshake included."""

    def connect(connection: Any) -> Any:
        sock = kind._new_conn(connection)
        deadline.watch(sock)
        return sock

    return type(f"Watched{kind.__name__}", (kind,), {"_new_conn": connect})


def _checked_url(url: str) -> str:
    """Without blanks around it and a slash at its end. Raises ``SetupError``."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as failure:
        raise SetupError(f"{shown_url(url)!r} is not a URL: {failure}") from None
    if NOT_IN_URL.search(url) or not is_whole or parts.query or parts.fragment:
        raise SetupError(f"{shown_url(url)!r} is not a URL such as http://127.0.0.1:5000")
    return url


def shown_url(url: str) -> str:
    """``url`` without a user and password."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if "@" in parts.netloc:
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return url
    return re.sub(r"//[^/]*@", "//", url)


def is_loopback(url: str) -> bool:
    """Whether the host is this machine by its name or address."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def reason(error: BaseException) -> str:
    """Why a connection failed, in one line, without the library's wrapping."""
    for _ in range(20):
        cause = _cause(error)
        if cause is None:
            break
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cause(error: BaseException) -> BaseException | None:
    """urllib3 keeps what it met in ``reason``, others in the chain."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return inner
    if error.args and isinstance(error.args[0], BaseException):
        return error.args[0]
    return error.__cause__ or error.__context__
