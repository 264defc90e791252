"""What the routes for tasks of texts take and give: rows of the table of operations. Pure data."""

from __future__ import annotations

from app.http.answers import task_types as answers
from app.http.answers.seq2seq_shapes import HubSummary, HubTranslation, Summary, Translation
from app.http.answers.stream import EventWriter
from app.http.description.operation_form import Operation, posting
from app.http.dialects.tgi.tgi_types import TgiInfo
from app.http.reading.body import JSON_TYPE
from app.http.schemas.hub_bodies import HubAnswerBody, HubClassifyBody, HubEntitiesBody, HubZeroShotBody
from app.http.schemas.peer_bodies import (
    CohereRerankBody,
    TeiEmbedBody,
    TeiPredictBody,
    TeiRerankBody,
    TeiSimilarityBody,
    VllmClassifyBody,
    VllmScoreBody,
)
from app.http.schemas.seq2seq_bodies import HubSummarizeBody, HubTranslateBody, SummarizeBody, TranslateBody
from app.http.schemas.text_task_bodies import AnswerBody, ClassifyBody, EntitiesBody, RerankBody, ZeroShotBody
from app.serve.incoming.error_forms import CohereError, Error, TeiError

QUERY = "What is a panda?"
DOCUMENTS = ["A bear of China.", "A city of France."]

TASK_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("/translate", "post"): posting(
        "Translate texts",
        "texts",
        TranslateBody | HubTranslateBody,
        Translation | list[HubTranslation],
        {"text": "Where is the station?", "src_lang": "en", "tgt_lang": "de"},
        streams=(EventWriter.mimetype,),
        text="By the checkpoint's own settings where the request names none; a list of texts gives lists.",
    ),
    ("/summarize", "post"): posting(
        "Summarize texts",
        "texts",
        SummarizeBody | HubSummarizeBody,
        Summary | list[HubSummary],
        {"text": "The tower is 324 metres tall, about the same height as an 81-storey building."},
        streams=(EventWriter.mimetype,),
        text="By the checkpoint's own settings where the request names none; a list of texts gives lists.",
    ),
    ("/classify", "post"): posting(
        "Classify texts",
        "texts",
        ClassifyBody | VllmClassifyBody | HubClassifyBody,
        answers.Classes,
        {"text": "I like it.", "top_k": 2},
        text="As transformers' pipeline answers, for a list of texts a list of that; with `input` as vLLM does.",
    ),
    ("/rerank", "post"): posting(
        "Put documents in the order in which they fit a query",
        "texts",
        RerankBody | TeiRerankBody,
        answers.Ranking | list[answers.TeiRank],
        {"query": QUERY, "documents": DOCUMENTS},
        text="With `texts` for `documents`, as text-embeddings-inference answers, failures included.",
        failure=Error | TeiError,
    ),
    ("/zero-shot", "post"): posting(
        "Classify texts by labels of the request",
        "texts",
        ZeroShotBody | HubZeroShotBody,
        answers.ZeroShotLabels | list[answers.ZeroShotLabels] | list[answers.LabelScore],
        {"text": "My phone is broken.", "candidate_labels": ["phone", "garden"]},
        text="As transformers' pipeline answers, for a list of texts a list of that.",
    ),
    ("/entities", "post"): posting(
        "Find entities in texts",
        "texts",
        EntitiesBody | HubEntitiesBody,
        answers.EntityList,
        {"text": "Sarah lives in London.", "aggregation_strategy": "simple"},
        text="As transformers' pipeline answers, for a list of texts a list of that.",
    ),
    ("/answer", "post"): posting(
        "Answer a question with words of a text",
        "texts",
        AnswerBody | HubAnswerBody,
        answers.FoundAnswer | list[answers.FoundAnswer],
        {"question": "Where does Sarah live?", "context": "Sarah lives in London."},
    ),
    **{
        (path, "post"): posting(
            "Put documents in the order in which they fit a query",
            "Cohere",
            CohereRerankBody,
            answers.CohereRanking,
            {"query": QUERY, "documents": DOCUMENTS, "top_n": 1},
            text="Cohere's API and Jina's.",
            failure=CohereError,
        )
        for path in ("/v1/rerank", "/v2/rerank")
    },
    ("/embed", "post"): posting(
        "Texts to vectors",
        "text-embeddings-inference",
        TeiEmbedBody,
        list[list[float]],
        {"inputs": ["one text", "another"]},
        failure=TeiError,
    ),
    ("/similarity", "post"): posting(
        "How alike sentences are",
        "text-embeddings-inference",
        TeiSimilarityBody,
        list[float],
        {"inputs": {"source_sentence": "one text", "sentences": ["another", "a third"]}},
        failure=TeiError,
    ),
    ("/predict", "post"): posting(
        "Classify texts",
        "text-embeddings-inference",
        TeiPredictBody,
        list[answers.LabelScore] | list[list[answers.LabelScore]],
        {"inputs": "I like it."},
        failure=TeiError,
    ),
    ("/info", "get"): Operation(
        "The first model and its bounds",
        "text-embeddings-inference",
        {JSON_TYPE: answers.TeiInfo | TgiInfo},
        statuses=(400, 503),
        failure=TeiError,
    ),
    **{
        (path, "post"): posting(
            "Score pairs of texts",
            "vLLM",
            VllmScoreBody,
            answers.PairScores,
            {"text_1": QUERY, "text_2": DOCUMENTS},
            text="vLLM's API; by an embedder the cosine of two vectors.",
        )
        for path in ("/score", "/v1/score")
    },
}
