"""OpenAI's API: for now the list of models. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.http.backend import inference_of
from app.http.errors import json_response
from app.http.restful import Route
from app.http.service import Service


class Models(Route):
    """The models that are served."""

    def get(self) -> Response:
        return json_response({"object": "list", "data": [describe(self.service)]})


class Model(Route):
    """One model by name; names may hold slashes."""

    def get(self, name: str) -> Response:
        self.service.require_model(name)
        return json_response(describe(self.service))


def describe(service: Service) -> dict[str, object]:
    """OpenAI's model object; ``created`` is when it was loaded, or the server started."""
    model = inference_of(service.context).model
    created_s = service.created_s if model is None else model.created_s
    return {"id": service.settings.model_name, "object": "model", "created": created_s, "owned_by": "forklift"}
