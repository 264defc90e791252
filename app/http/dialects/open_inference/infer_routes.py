"""The routes of the Open Inference Protocol below ``/v2``. HTTP threads."""

from __future__ import annotations

from flask import Response

from app import __version__
from app.core.states import overall_state
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.dialects.open_inference import infer_types as oip
from app.http.dialects.open_inference.infer_body import InferBody
from app.http.dialects.open_inference.tensors import find_model, infer, is_ready, metadata
from app.http.reading.body import read_body
from app.serve.context import WorkerContext

NAME = "forklift"


def is_server_ready(context: WorkerContext) -> bool:
    """As ``/readyz``: whether any worker takes work."""
    return overall_state([row.state for row in context.board.rows() if row.pid is not None]) == "ready"


def server_metadata() -> oip.ServerMetadata:
    """What answers."""
    return {"name": NAME, "version": __version__, "extensions": []}


class InferServer(Route):
    """``GET /v2``."""

    def get(self) -> Response:
        return json_response(server_metadata())


class InferLive(Route):
    """``GET /v2/health/live``."""

    def get(self) -> Response:
        answer: oip.ServerLive = {"live": True}
        return json_response(answer)


class InferReady(Route):
    """``GET /v2/health/ready``."""

    def get(self) -> Response:
        answer: oip.ServerReady = {"ready": is_server_ready(self.service.context)}
        return json_response(answer, 200 if answer["ready"] else 503)


class InferModel(Route):
    """``GET /v2/models/<name>``."""

    def get(self, name: str, version: str = "") -> Response:
        return json_response(metadata(self.service, name, version))


class InferModelReady(Route):
    """``GET /v2/models/<name>/ready``."""

    def get(self, name: str, version: str = "") -> Response:
        handle = find_model(self.service, name, version)
        answer: oip.ModelReady = {"name": handle.name, "ready": is_ready(handle)}
        return json_response(answer, 200 if answer["ready"] else 503)


class Infer(Route):
    """``POST /v2/models/<name>/infer``."""

    def post(self, name: str, version: str = "") -> Response:
        return json_response(infer(self.service, name, version, read_body(InferBody)))
