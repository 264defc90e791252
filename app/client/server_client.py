"""A method for each thing that a server does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from .answer_reading import (
    by_mask,
    completion_of,
    entity_of,
    found_answer_of,
    label_score_of,
    proposal_of,
    ranked_document_of,
)
from .asking_again import own_pause_s, refusal
from .client_answers import (
    Completion,
    Embeddings,
    Entity,
    FoundAnswer,
    LabelScore,
    Message,
    MessagePiece,
    Piece,
    Proposal,
    RankedDocument,
    Tokens,
)
from .client_errors import LateError, NoAnswerError, SetupError
from .connection.endpoint import Endpoint
from .connection.exchange import Exchange
from .error_reading import make_error
from .event_reading import pieces_of
from .fields import count_field, items_of, list_field, member, number, require, text_field
from .message_reading import message_of, message_pieces_of

# The server is told the limit and answers 504 at it: that answer should still arrive.
TIMEOUT_GRACE_S = 5.0

# As OpenAI's API has them: ``{"role": ..., "content": ...}``.
Messages = Sequence[Mapping[str, Any]]


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
    def converse(self, messages: Messages, *, stream: Literal[False] = False, **options: Any) -> Message: ...
    @overload
    def converse(self, messages: Messages, *, stream: Literal[True], **options: Any) -> Iterator[MessagePiece]: ...
    def converse(self, messages: Messages, *, stream: bool = False, **options: Any) -> Message | Iterator[MessagePiece]:
        """Answers ``messages`` with text, reasoning and calls told apart; ``tools``, ``tool_choice``,
        ``response_format`` and the other options are those of ``/v1/chat/completions``, but for those of which nothing
        would come back here: ``n`` above 1 and ``logprobs``. Raises ``SetupError`` for these."""
        if options.get("n") not in (None, 1) or options.get("logprobs"):
            raise SetupError("converse gives back one answer, without log-probabilities: leave out n and logprobs")
        body = {"messages": messages, **options}
        if stream:
            streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
            return message_pieces_of(self._post("/v1/chat/completions", streamed))
        return message_of(self._ask("/v1/chat/completions", body))

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
        return [[proposal_of(one) for one in proposals] for proposals in by_mask(found)]

    def classify(self, text: str | list[str], top_k: int = 1, **options: Any) -> list[list[LabelScore]]:
        """The labels of each text, best first."""
        found = self._ask("/classify", {"text": text, "top_k": top_k, **options})
        return [[label_score_of(one) for one in items_of(labels)] for labels in by_mask(found)]

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
        return [ranked_document_of(one) for one in items_of(require(found, dict, "the answer").get("results"))]

    def zero_shot(self, text: str, labels: list[str], *, multi_label: bool = False, **options: Any) -> list[LabelScore]:
        """How well labels that the model was not trained with fit a text, best first."""
        body = {"text": text, "candidate_labels": labels, "multi_label": multi_label, **options}
        found = self._ask("/zero-shot", body)
        answer = require(found, dict, "the answer")
        pairs = zip(items_of(answer.get("labels")), items_of(answer.get("scores")), strict=False)
        return [LabelScore(require(label, str, "a label"), number(score)) for label, score in pairs]

    def entities(self, text: str, aggregation_strategy: str = "simple", **options: Any) -> list[Entity]:
        """What is named in a text."""
        found = self._ask("/entities", {"text": text, "aggregation_strategy": aggregation_strategy, **options})
        return [entity_of(one) for one in items_of(found)]

    def answer(self, question: str, context: str, top_k: int = 1, **options: Any) -> list[FoundAnswer]:
        """The characters of ``context`` that answer the question, best first."""
        found = self._ask("/answer", {"question": question, "context": context, "top_k": top_k, **options})
        return [found_answer_of(one) for one in (found if isinstance(found, list) else [found])]

    def embed(self, inputs: str | list[str], *, model: str | None = None, **options: Any) -> Embeddings:
        """A vector for each text."""
        found = self._ask("/v1/embeddings", {"input": inputs, "model": model, **options})
        vectors = [[number(one) for one in list_field(item, "embedding")] for item in list_field(found, "data")]
        return Embeddings(vectors, text_field(found, "model"), count_field(member(found, "usage"), "prompt_tokens"))

    def tokenize(self, text: str, **options: Any) -> Tokens:
        """The tokens of a text."""
        found = self._ask("/tokenize", {"text": text, **options})
        ids = tuple(require(one, int, "tokens") for one in list_field(found, "tokens"))
        texts = tuple(require(one, str, "token_strings") for one in list_field(found, "token_strings"))
        return Tokens(ids, texts, count_field(found, "max_context"))

    def detokenize(self, ids: Sequence[int], **options: Any) -> str:
        """The text of tokens."""
        return text_field(self._ask("/detokenize", {"tokens": list(ids), **options}), "text")

    def models(self) -> list[dict[str, Any]]:
        """What each served model can do, within which bounds, as ``/v1/capabilities`` tells it."""
        return [require(one, dict, "data") for one in list_field(self._ask("/v1/capabilities"), "data")]

    def _texts(self, path: str, key: str, body: dict[str, Any]) -> list[str]:
        made = require(self._ask(path, body), dict, "the answer").get(key)
        return [require(one, str, key) for one in (made if isinstance(made, list) else [made])]

    def _generate(self, path: str, key: str, body: dict[str, Any], stream: bool) -> Completion | Iterator[Piece]:
        if stream:
            return pieces_of(self._post(path, {**body, "stream": True}), key)
        return completion_of(self._ask(path, {**body, "stream": False}), key)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of a whole answer. Raises ``ClientError``."""
        with self._post(path, body, is_whole=True) as exchange:
            found = exchange.whole().json()
        if isinstance(found, dict) and found.get("error") is not None:
            raise make_error(found, exchange.status)
        return found

    def _post(self, path: str, body: dict[str, Any] | None, is_whole: bool = False) -> Exchange:
        """An answer of status 200, after as many attempts as are allowed. Raises ``ClientError``."""
        data = None if body is None else _json_bytes(body)
        waited_s = 0.0
        for attempt in range(self._max_retries + 1):
            begun_s = time.monotonic()
            try:
                exchange = self._send(path, data, self._timeout_s - waited_s)
                if exchange.status == 200:
                    return exchange.read() if is_whole else exchange
                error, pause_s = refusal(exchange, attempt)
            except NoAnswerError as failure:
                error = failure
                pause_s = None if isinstance(failure, LateError) else own_pause_s(attempt)
            waited_s += time.monotonic() - begun_s
            if attempt == self._max_retries or not self._may_wait(pause_s, waited_s):
                raise error
            time.sleep(pause_s or 0.0)
            waited_s += pause_s or 0.0
        raise AssertionError("the last attempt returns or raises")

    def _may_wait(self, pause_s: float | None, waited_s: float) -> bool:
        return pause_s is not None and pause_s <= self._max_pause_s and waited_s + pause_s < self._timeout_s

    def _send(self, path: str, data: bytes | None, left_s: float) -> Exchange:
        headers = {"Content-Type": "application/json", "X-Request-Timeout-S": f"{left_s:.3f}"}
        return self._endpoint.open(
            "GET" if data is None else "POST", path, left_s + min(TIMEOUT_GRACE_S, left_s / 2), data, headers
        )


def _json_bytes(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as failure:
        raise SetupError(f"the options cannot be written as JSON: {failure}") from None
