"""A method for each thing that a server does."""

from __future__ import annotations

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
from .client_errors import SetupError
from .connection.endpoint import Endpoint
from .connection.exchange import AnswerSource
from .connection.grpc_address import is_grpc
from .connection.grpc_server import GrpcServer
from .connection.one_server import CallLimits, OneServer, Transport
from .discovery.attempts.ways import Over, way_over
from .discovery.many_servers import Affinity, ManyServers
from .discovery.registry_opening import open_list
from .discovery.server_entry import ServerEntry
from .error_reading import make_error
from .event_reading import pieces_of
from .fields import count_field, items_of, list_field, member, number, require, text_field
from .message_reading import message_of, message_pieces_of
from .other_routes import OtherRoutes

# As OpenAI's API has them: ``{"role": ..., "content": ...}``.
Messages = Sequence[Mapping[str, Any]]


class Client(OtherRoutes):
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
        limits = CallLimits(timeout_s, max_retries, max_pause_s)
        self._transport: Transport = (
            GrpcServer(url, api_key, limits) if is_grpc(url) else OneServer(Endpoint(url, api_key), limits)
        )

    @classmethod
    def discover(
        cls,
        registry: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 300.0,
        max_retries: int = 2,
        max_pause_s: float = 60.0,
        zone: str | None = None,
        affinity: Affinity = "none",
        over: Over = "http",
    ) -> Client:
        """A client of all servers in a registry: ``zookeeper://h1,h2:2181/forklift``, or ``forklift://a:5000,b:5000``.

        Each call goes to a ready server that has its model: of two drawn at random the less loaded. One of which no
        part of an answer came is made again elsewhere, at once; ``max_retries`` is how often all servers are asked
        again after a pause. Servers of ``zone`` are preferred while they have room; with the affinity ``prefix``
        prompts that begin alike go to the same server, which may have that beginning in its cache. The list stays as
        it was while the registry is away. ``close`` ends what follows it. ``over="grpc"``: calls go to the gRPC ports
        that servers announce, and to those of a list ``grpc://a:50051,b:50051``. Raises ``SetupError``.
        """
        way = way_over("grpc" if is_grpc(registry) else over, api_key)
        shown, servers = open_list(registry)
        limits = CallLimits(timeout_s, max_retries, max_pause_s)
        client = cls.__new__(cls)
        client._transport = ManyServers(shown, servers, way, limits, zone, affinity)
        return client

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop following a registry; harmless without one."""
        self._transport.close()

    def servers(self) -> tuple[ServerEntry, ...]:
        """The servers that may be asked, as the registry tells them."""
        return self._transport.servers

    def __repr__(self) -> str:
        return f"Client({self._transport.shown_url!r})"

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

    def _post(self, path: str, body: dict[str, Any] | None, is_whole: bool = False) -> AnswerSource:
        """An answer of status 200, after as many attempts as are allowed. Raises ``ClientError``."""
        return self._transport.post(path, body, is_whole)
