"""``/answer``: answers a question with words of a text. HTTP threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response

from app.core.errors import ContextLengthError, InvalidParameterError
from app.core.tasks.encoder_jobs import EncoderInput
from app.http.answers.task_types import FoundAnswer
from app.http.application.error_envelope import json_response
from app.http.requests.encoding import EncodeWith
from app.http.requests.limits import naming
from app.http.resources.text_tasks.body_shapes import HUB, BodyShape, TextTaskRoute, naming_inputs
from app.http.schemas.hub_bodies import HubAnswerBody
from app.http.schemas.text_task_bodies import AnswerBody

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel

PART_TOKENS = 384
OVERLAP_TOKENS = 128


def answer(route: TextTaskRoute, body: AnswerBody) -> Response:
    """The best answer; a list of them where more than one is wanted."""
    if not body.context.strip():
        raise InvalidParameterError("context: is empty", param="context")
    work = EncodeWith("answer", "context", lambda model: parts_of(body, model))
    with route.open(work, body.model, body.question, body.recordid) as encoding:
        spans = encoding.encoder.find_answers(
            encoding.read_encoded(), body.top_k, body.max_answer_len, may_be_none=body.handle_impossible_answer
        )
        found: list[FoundAnswer] = [
            {
                "score": span.score,
                "start": span.start,
                "end": span.end,
                "answer": body.context[span.start : span.end],
            }
            for span in spans
        ]
        return json_response(found[0] if body.top_k == 1 else found, headers=encoding.headers())


def hub_answer(route: TextTaskRoute, body: HubAnswerBody) -> Response:
    """The same."""
    with naming_inputs():
        return answer(route, body.own())


def parts_of(body: AnswerBody, model: EncoderModel) -> list[EncoderInput]:
    """The question before each part of the context. Raises a ``RequestError`` that names the field at fault."""
    num_tokens = min(body.max_seq_len or PART_TOKENS, model.context_tokens)
    with naming("question"):
        taken = len(model.read(body.question, "").ids)
    room = num_tokens - taken
    if room < 1:
        text = f"question: {taken} tokens leave no room for the context in parts of {num_tokens} tokens"
        raise ContextLengthError(text, param="question")
    if body.doc_stride is not None and body.doc_stride >= room:
        message = f"doc_stride: must be less than the {room} tokens of the context that a part has room for"
        raise InvalidParameterError(message, param="doc_stride")
    overlap = min(OVERLAP_TOKENS, room // 2) if body.doc_stride is None else body.doc_stride
    parts = model.windows(body.context, body.question, num_tokens=num_tokens, overlap=overlap)
    if not any(segment == 1 for part in parts for segment in part.segments):
        raise InvalidParameterError("context: holds no token", param="context")
    return parts


class Answer(TextTaskRoute):
    """Answers a question about a text."""

    shapes = (
        BodyShape("question", AnswerBody, answer),
        BodyShape("inputs", HubAnswerBody, hub_answer, api=HUB),
    )
