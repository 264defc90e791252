"""Makes the Flask application of one worker. Knows neither torch nor Gunicorn."""

from __future__ import annotations

import time

from flask import Flask

from app.http.answers.stream import PING_INTERVAL_S
from app.http.application import auth, origins, pages, request_log, work_bytes
from app.http.application import path_prefix as prefix
from app.http.application.restful import JsonApi, Route
from app.http.application.service import Service
from app.http.dialects.messages.messages_routes import CountTokens, Messages
from app.http.dialects.open_inference.infer_routes import (
    Infer,
    InferLive,
    InferModel,
    InferModelReady,
    InferReady,
    InferServer,
)
from app.http.dialects.responses.responses_route import Responses
from app.http.dialects.tgi.tgi_routes import TgiGenerate, TgiGenerateStream
from app.http.lora.adapter_routes import LoadAdapter, UnloadAdapter
from app.http.lora.adapter_service import AdapterService
from app.http.resources.capabilities_route import Capabilities
from app.http.resources.docs_routes import Docs, Markdown, OpenApi
from app.http.resources.encoder_routes import Embeddings, FillMask
from app.http.resources.infill_route import Infill
from app.http.resources.legacy_routes import Root
from app.http.resources.metrics_route import MetricsPage
from app.http.resources.native_routes import Chat, Complete
from app.http.resources.openai_routes import ChatCompletions, Completions, FimCompletions, Model, Models
from app.http.resources.probe_routes import Health, Livez, Props, Readyz
from app.http.resources.text_tasks.answer_route import Answer
from app.http.resources.text_tasks.classify_routes import Classify, Predict
from app.http.resources.text_tasks.embed_route import Embed
from app.http.resources.text_tasks.entities_route import Entities
from app.http.resources.text_tasks.info_route import Info
from app.http.resources.text_tasks.rerank_routes import CohereRerank, Rerank, Score
from app.http.resources.text_tasks.seq2seq_routes import Summarize, Translate
from app.http.resources.text_tasks.similarity_route import Similarity
from app.http.resources.text_tasks.zero_shot_route import ZeroShot
from app.http.resources.token_routes import Detokenize, Tokenize
from app.serve.context import WorkerContext, current

ROUTES: dict[str, type[Route]] = {
    "/": Root,
    "/complete": Complete,
    "/chat": Chat,
    "/infill": Infill,
    "/fill-mask": FillMask,
    "/generate": TgiGenerate,
    "/generate_stream": TgiGenerateStream,
    "/translate": Translate,
    "/summarize": Summarize,
    "/classify": Classify,
    "/embed": Embed,
    "/similarity": Similarity,
    "/predict": Predict,
    "/info": Info,
    "/zero-shot": ZeroShot,
    "/entities": Entities,
    "/answer": Answer,
    "/rerank": Rerank,
    "/v1/rerank": CohereRerank,
    "/v2/rerank": CohereRerank,
    "/score": Score,
    "/v1/score": Score,
    "/tokenize": Tokenize,
    "/detokenize": Detokenize,
    "/markdown": Markdown,
    "/v1/embeddings": Embeddings,
    "/v1/completions": Completions,
    "/v1/chat/completions": ChatCompletions,
    "/v1/fim/completions": FimCompletions,
    "/v1/responses": Responses,
    "/v1/messages": Messages,
    "/v1/messages/count_tokens": CountTokens,
    "/v1/capabilities": Capabilities,
    "/v1/models": Models,
    "/v1/models/<path:name>": Model,
    "/v1/load_lora_adapter": LoadAdapter,
    "/v1/unload_lora_adapter": UnloadAdapter,
    "/v2": InferServer,
    "/v2/health/live": InferLive,
    "/v2/health/ready": InferReady,
    "/v2/models/<string:name>": InferModel,
    "/v2/models/<string:name>/ready": InferModelReady,
    "/v2/models/<string:name>/infer": Infer,
    "/v2/models/<string:name>/versions/<string:version>": InferModel,
    "/v2/models/<string:name>/versions/<string:version>/ready": InferModelReady,
    "/v2/models/<string:name>/versions/<string:version>/infer": Infer,
    "/livez": Livez,
    "/readyz": Readyz,
    "/health": Health,
    "/props": Props,
    "/metrics": MetricsPage,
}
# What describes the routes above.
DESCRIPTIONS: dict[str, type[Route]] = {"/openapi.json": OpenApi, "/docs": Docs}


def create_app(context: WorkerContext | None = None, *, ping_interval_s: float = PING_INTERVAL_S) -> Flask:
    """The WSGI application of the worker that ``context`` describes; default: this process's."""
    context = current() if context is None else context
    settings = context.settings
    app = Flask("app", static_folder=None)
    set_body_limit(app, settings.max_body_bytes)
    app.config["IGNORES_UNKNOWN_FIELDS"] = settings.unknown_fields == "warn"
    # `//complete` is no route: a redirect would lose the body.
    app.url_map.merge_slashes = False
    work_bytes.init_app(app, settings.max_body_bytes)
    request_log.init_app(app, context)
    prefix.init_app(app, settings.path_prefix)
    origins.init_app(app, settings.hosts, settings.cors_origins)
    auth.init_app(app, settings.api_keys)
    pages.init_app(app)
    api = JsonApi(app)
    service = Service(context, ping_interval_s, int(time.time()), AdapterService(context))
    for url, route in (ROUTES | DESCRIPTIONS).items():
        # Several paths may be one resource.
        api.add_resource(route, url, endpoint=url, resource_class_kwargs={"service": service})
    return app


def set_body_limit(app: Flask, max_body_bytes: int) -> None:
    """One byte above the limit is let in: Werkzeug 3.1 cuts a chunked body at its own limit without
    a word, and only a body that is longer than ours shows that there was more."""
    app.config["MAX_BODY_BYTES"] = max_body_bytes
    app.config["MAX_CONTENT_LENGTH"] = app.config["MAX_FORM_MEMORY_SIZE"] = max_body_bytes + 1
