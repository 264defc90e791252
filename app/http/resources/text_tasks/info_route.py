"""``GET /info``: what the clients of text-embeddings-inference and text-generation-inference ask. HTTP threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response

from app import __version__
from app.core.errors import LoadingError, UnsupportedParameterError
from app.core.tasks.encoder_jobs import MAX_BATCH_TEXTS, MAX_BATCH_TOKENS
from app.http.answers.task_types import TeiInfo, TeiLabels, TeiModelType
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.dialects.tgi.tgi_routes import tgi_info
from app.http.schemas.encoder_bodies import MAX_TEXTS

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel


class Info(Route):
    """The first model, as one of the two tells of its own: its task decides."""

    def get(self) -> Response:
        handle = self.service.handles[0]
        model, settings = handle.model, handle.settings
        if model is None:
            raise LoadingError("the model is not loaded")
        if model.task == "generate":
            return json_response(tgi_info(model, settings))
        if model.task == "seq2seq":
            text = f"the model {handle.name} makes texts from texts, which /info has no form for"
            raise UnsupportedParameterError(text)
        told: TeiInfo = {
            "model_id": model.name,
            "model_sha": settings.revision,
            "model_dtype": model.dtype,
            "model_type": model_type(model),
            "max_concurrent_requests": settings.max_batch_size + settings.max_queue,
            "max_input_length": model.context_tokens,
            "max_batch_tokens": MAX_BATCH_TOKENS,
            "max_batch_requests": MAX_BATCH_TEXTS,
            "max_client_batch_size": MAX_TEXTS,
            "auto_truncate": False,
            "tokenization_workers": 1,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }
        return json_response(told)


def model_type(model: EncoderModel) -> TeiModelType:
    """What the model is for, as far as text-embeddings-inference has it. Raises ``UnsupportedParameterError``."""
    names = {str(index): name for index, name in enumerate(model.labels.names)}
    labels: TeiLabels = {"id2label": names, "label2id": {name: int(index) for index, name in names.items()}}
    match model.task:
        case "embeddings":
            return {"embedding": {"pooling": model.form.pooling}}
        case "rerank":
            return {"reranker": labels}
        case "classify" | "zero-shot":
            return {"classifier": labels}
        case other:
            text = f"the model {model.name} is for the task {other}, which /info has no form for"
            raise UnsupportedParameterError(text)
