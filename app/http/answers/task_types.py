"""What the routes for tasks of texts answer, for the OpenAPI description: ours and peers'. Types only."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from app.http.answers.native_types import Recorded, Timings
from app.http.answers.openai_types import InputUsage


class VllmUsage(InputUsage):
    """Token counts with the count that is always 0."""

    completion_tokens: int


class TaskDetails(TypedDict):
    """What a native answer tells beside its results."""

    usage: InputUsage
    timings: Timings
    model: str
    request_id: str
    recordid: NotRequired[Recorded]


class LabelScore(TypedDict):
    """A label and how well it fits."""

    label: str
    score: float


class VllmClass(TypedDict):
    """One text, classified."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class VllmClasses(TypedDict):
    """Classified texts, as vLLM answers."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmClass]
    usage: VllmUsage


Classes = list[LabelScore] | list[list[LabelScore]] | VllmClasses


class RankedDocument(TypedDict):
    """The text of a document."""

    text: str


class RankedResult(TypedDict):
    """One document by its place in the request, and how well it fits the query."""

    index: int
    relevance_score: float
    document: NotRequired[RankedDocument]


class Ranking(TaskDetails):
    """Documents, best first."""

    results: list[RankedResult]


class TeiRank(TypedDict):
    """One text by its place in the request, as text-embeddings-inference answers."""

    index: int
    score: float
    text: NotRequired[str]


class ApiVersion(TypedDict):
    """Of Cohere's API."""

    version: Literal["1", "2"]


class RankingMeta(TypedDict):
    """What Cohere's client reads beside the results."""

    api_version: ApiVersion


class CohereRanking(TypedDict):
    """Documents, best first, for the clients of Cohere and Jina."""

    id: str
    object: Literal["list"]
    model: str
    results: list[RankedResult]
    usage: InputUsage
    meta: RankingMeta


class PairScore(TypedDict):
    """How well one pair fits."""

    index: int
    object: Literal["score"]
    score: float


class PairScores(TypedDict):
    """Scored pairs, as vLLM answers."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[PairScore]
    usage: VllmUsage


class ZeroShotLabels(TypedDict):
    """A text and the labels of the request, best first."""

    sequence: str
    labels: list[str]
    scores: list[float]


class TokenEntity(TypedDict):
    """A token with its label; places are characters of the text, null where the tokenizer cannot tell."""

    entity: str
    score: float
    index: int
    word: str
    start: int | None
    end: int | None


class EntityGroup(TypedDict):
    """An entity of one token or several."""

    entity_group: str
    score: float
    word: str
    start: int | None
    end: int | None


EntityList = list[TokenEntity] | list[EntityGroup] | list[list[TokenEntity]] | list[list[EntityGroup]]


class FoundAnswer(TypedDict):
    """Characters of the context that answer the question; none where it has no answer."""

    score: float
    start: int
    end: int
    answer: str


class TeiLabels(TypedDict):
    """The labels of a classifier, both ways."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class TeiPooling(TypedDict):
    """How vectors are made of tokens."""

    pooling: Literal["mean", "cls", "lasttoken"]


class TeiModelType(TypedDict, total=False):
    """What a model is for: one of these."""

    embedding: TeiPooling
    classifier: TeiLabels
    reranker: TeiLabels


class TeiInfo(TypedDict):
    """A server's model and bounds, as text-embeddings-inference tells them."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: TeiModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
