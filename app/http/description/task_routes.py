"""Which task each route needs, and the body that tells its parameters. Pure data."""

from __future__ import annotations

from app.core.tasks.task_table import Task, can_serve
from app.http.dialects.messages.messages_body import CountTokensBody, MessagesBody
from app.http.dialects.responses.responses_body import ResponsesBody
from app.http.dialects.tgi.tgi_body import TgiBody
from app.http.schemas.chat_body import ChatCompletionsBody
from app.http.schemas.completions_body import CompletionsBody
from app.http.schemas.encoder_bodies import EmbeddingsBody, FillMaskBody
from app.http.schemas.fim_body import FimBody
from app.http.schemas.infill_body import InfillBody
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.peer_bodies import (
    CohereRerankBody,
    TeiEmbedBody,
    TeiPredictBody,
    TeiSimilarityBody,
    VllmScoreBody,
)
from app.http.schemas.seq2seq_bodies import SummarizeBody, TranslateBody
from app.http.schemas.strict import StrictBody
from app.http.schemas.text_task_bodies import AnswerBody, ClassifyBody, EntitiesBody, RerankBody, ZeroShotBody

# Where a route takes several forms, the body is our own.
TASK_ROUTES: dict[str, tuple[Task, type[StrictBody]]] = {
    "/complete": ("generate", CompleteBody),
    "/chat": ("generate", ChatBody),
    "/infill": ("generate", InfillBody),
    "/v1/completions": ("generate", CompletionsBody),
    "/v1/chat/completions": ("generate", ChatCompletionsBody),
    "/v1/fim/completions": ("generate", FimBody),
    "/v1/responses": ("generate", ResponsesBody),
    "/v1/messages": ("generate", MessagesBody),
    "/v1/messages/count_tokens": ("generate", CountTokensBody),
    "/generate": ("generate", TgiBody),
    "/generate_stream": ("generate", TgiBody),
    "/translate": ("seq2seq", TranslateBody),
    "/summarize": ("seq2seq", SummarizeBody),
    "/fill-mask": ("fill-mask", FillMaskBody),
    "/v1/embeddings": ("embeddings", EmbeddingsBody),
    "/embed": ("embeddings", TeiEmbedBody),
    "/similarity": ("embeddings", TeiSimilarityBody),
    "/classify": ("classify", ClassifyBody),
    "/predict": ("classify", TeiPredictBody),
    "/zero-shot": ("zero-shot", ZeroShotBody),
    "/entities": ("entities", EntitiesBody),
    "/answer": ("answer", AnswerBody),
    "/rerank": ("rerank", RerankBody),
    "/v1/rerank": ("rerank", CohereRerankBody),
    "/v2/rerank": ("rerank", CohereRerankBody),
    "/score": ("rerank", VllmScoreBody),
    "/v1/score": ("rerank", VllmScoreBody),
}
# Routes that models for a further task answer as well.
ALSO: set[tuple[str, Task]] = {
    ("/v1/completions", "seq2seq"),
    ("/score", "embeddings"),
    ("/v1/score", "embeddings"),
}


def routes_of(task: Task) -> dict[str, type[StrictBody]]:
    """The routes that a model for ``task`` answers."""
    able = {path for path, (wanted, _) in TASK_ROUTES.items() if can_serve(task, wanted) or (path, task) in ALSO}
    return {path: body for path, (_, body) in TASK_ROUTES.items() if path in able}
