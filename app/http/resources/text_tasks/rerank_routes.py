"""``/rerank``, in our form and others'; Cohere's and Jina's routes; vLLM's ``/score``. HTTP threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flask import Response, request

from app.core.errors import ContextLengthError, InvalidParameterError
from app.core.tasks.encoder_jobs import Cut, EncoderInput
from app.http.answers.task_types import CohereRanking, PairScores, RankedResult, Ranking, TeiRank
from app.http.application.error_envelope import json_response
from app.http.requests.encoding import EncodeWith, Encoding
from app.http.requests.limits import naming
from app.http.resources.text_tasks.body_shapes import BodyShape, TextTaskRoute, details, token_usage
from app.http.resources.text_tasks.similarity_route import cosines, in_vectors
from app.http.schemas.peer_bodies import CohereRerankBody, TeiRerankBody, VllmScoreBody
from app.http.schemas.text_task_bodies import RerankBody
from app.serve.incoming.error_forms import cohere_error, tei_error

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel


@dataclass(frozen=True, slots=True)
class QueryAndTexts:
    """A query and what it is paired with, ``param`` in the body.

    ``cut``: where a pair that does not fit is cut; ``most_tokens``: how many tokens a text is cut to first.
    """

    query: str
    texts: Sequence[str]
    param: str
    cut: Cut | None = None
    most_tokens: int | None = None

    def work(self) -> EncodeWith:
        return EncodeWith("rerank", self.param, self._encode)

    def _encode(self, model: EncoderModel) -> Iterator[EncoderInput]:
        """Each pair. Raises ``ContextLengthError``, also where the query alone leaves no room for a text."""
        most = self.most_tokens
        texts = self.texts if most is None else (model.cut_text(text, most) for text in self.texts)
        pairs = ((self.query, text) for text in texts)
        return read_pairs(model, pairs, self.cut, {self.query}, "query")


def read_pairs(
    model: EncoderModel, pairs: Iterable[tuple[str, str]], cut: Cut | None, firsts: Iterable[str], param: str
) -> Iterator[EncoderInput]:
    """Each pair. Raises ``ContextLengthError``, which names ``param`` where one of ``firsts`` is too long by itself.

    Those are only looked at where a pair does not fit: their tokens are not counted twice for all that do.
    """

    def look_at_firsts() -> None:
        for text in firsts:
            require_room(model, text, param)

    try:
        for one in model.read_pairs(pairs, cut=cut):
            if len(one.ids) > model.context_tokens:
                look_at_firsts()
            yield one
    except ContextLengthError as error:
        if error.param is None:
            look_at_firsts()
        raise


def require_room(model: EncoderModel, text: str, param: str) -> None:
    """Raise ``ContextLengthError`` where the first text of a pair (``param`` in the body) leaves the second none."""
    with naming(param):
        num_tokens = len(model.encode(text))
    if num_tokens >= model.context_tokens:
        message = f"{param}: {num_tokens} tokens leave no room in the context of {model.context_tokens} tokens"
        raise ContextLengthError(message, param=param)


def ranked(encoding: Encoding, *, top_n: int | None = None, is_raw: bool = False) -> list[tuple[int, float]]:
    """Index and score of the best texts, best first."""
    labels = encoding.encoder.labels
    scores = [labels.pair_score(one.logits, is_raw=is_raw) for _, one in encoding.read_encoded()]
    return sorted(enumerate(scores), key=lambda pair: pair[1], reverse=True)[:top_n]


def results(found: list[tuple[int, float]], documents: Sequence[str] | None) -> list[RankedResult]:
    """As Cohere's API and its followers write them; with the documents where they are given."""
    if documents is None:
        return [{"index": index, "relevance_score": score} for index, score in found]
    return [{"index": at, "relevance_score": score, "document": {"text": documents[at]}} for at, score in found]


def rerank(route: TextTaskRoute, body: RerankBody) -> Response:
    """The results, and what every native answer tells."""
    given = QueryAndTexts(body.query, body.documents, "documents", body.cut)
    with route.open(given.work(), body.model, body.query, body.recordid) as encoding:
        found = ranked(encoding, top_n=body.top_n, is_raw=body.raw_scores)
        shown = results(found, body.documents if body.return_documents else None)
        answer: Ranking = {"results": shown, **details(encoding, body.recordid)}
        return json_response(answer, headers=encoding.headers())


def tei_rerank(route: TextTaskRoute, body: TeiRerankBody) -> Response:
    """A bare list."""
    given = QueryAndTexts(body.query, body.texts, "texts", body.cut)
    with route.open(given.work(), None, body.query) as encoding:
        found = ranked(encoding, is_raw=body.raw_scores)
        shown: list[TeiRank] = [{"index": index, "score": score} for index, score in found]
        if body.return_text:
            shown = [{**one, "text": body.texts[one["index"]]} for one in shown]
        return json_response(shown, headers=encoding.headers())


def cohere_rerank(route: TextTaskRoute, body: CohereRerankBody) -> Response:
    """What Cohere and Jina answer, together: each client reads its own fields."""
    given = QueryAndTexts(body.query, body.texts, "documents", Cut() if body.truncation else None)
    if body.max_tokens_per_doc is not None:
        given = replace(given, most_tokens=body.max_tokens_per_doc)
    with route.open(given.work(), body.model, body.query) as encoding:
        found = ranked(encoding, top_n=body.top_n)
        answer: CohereRanking = {
            "id": encoding.request_id,
            "object": "list",
            "model": encoding.model,
            "results": results(found, body.texts if body.return_documents else None),
            "usage": token_usage(encoding),
            "meta": {"api_version": {"version": "2" if request.path.startswith("/v2") else "1"}},
        }
        return json_response(answer, headers=encoding.headers())


def vllm_score(route: TextTaskRoute, body: VllmScoreBody) -> Response:
    """A score for each pair, in their order: a cross-encoder's, or the cosine of an embedder's vectors."""
    pairs = scored_pairs(body)
    handle = route.service.choose(body.model, "rerank", "embeddings")
    if handle.task == "embeddings":
        with route.open_on(handle, in_vectors(pairs, body.cut), body.text_1) as encoding:
            return pair_scores(encoding, cosines(pairs, encoding))

    def encode(model: EncoderModel) -> Iterator[EncoderInput]:
        return read_pairs(model, pairs, body.cut, dict.fromkeys(one for one, _ in pairs), "text_1")

    with route.open_on(handle, EncodeWith("rerank", "text_2", encode), body.text_1) as encoding:
        labels, is_raw = encoding.encoder.labels, not body.use_activation
        scores = [labels.pair_score(one.logits, is_raw=is_raw) for _, one in encoding.read_encoded()]
        return pair_scores(encoding, scores)


def pair_scores(encoding: Encoding, scores: list[float]) -> Response:
    """As vLLM tells them."""
    answer: PairScores = {
        "id": f"score-{encoding.request_id}",
        "object": "list",
        "created": int(time.time()),
        "model": encoding.model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": {**token_usage(encoding), "completion_tokens": 0},
    }
    return json_response(answer, headers=encoding.headers())


def scored_pairs(body: VllmScoreBody) -> list[tuple[str, str]]:
    """One text with each of the others, or the texts two by two. Raises ``InvalidParameterError``."""
    ones, others = ([given] if isinstance(given, str) else given for given in (body.text_1, body.text_2))
    if len(ones) not in (1, len(others)):
        message = f"text_2: has {len(others)} texts, text_1 has {len(ones)}; send one text_1, or as many as text_2"
        raise InvalidParameterError(message, param="text_2")
    return list(zip(ones if len(ones) > 1 else ones * len(others), others, strict=True))


class Rerank(TextTaskRoute):
    """Puts documents in the order in which they fit a query."""

    shapes = (
        BodyShape("documents", RerankBody, rerank),
        BodyShape("texts", TeiRerankBody, tei_rerank, tei_error, api="text-embeddings-inference"),
    )


class CohereRerank(TextTaskRoute):
    """Cohere's API, first and second version, and Jina's."""

    shapes = (BodyShape("documents", CohereRerankBody, cohere_rerank, cohere_error, api="Cohere"),)


class Score(TextTaskRoute):
    """Says how well two texts fit; vLLM's API."""

    shapes = (BodyShape("text_1", VllmScoreBody, vllm_score, api="vLLM"),)
