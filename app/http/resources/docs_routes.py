"""``/openapi.json``, and ``/docs``, which shows it. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.http.application.error_envelope import json_response
from app.http.application.pages import page_response
from app.http.application.restful import Route
from app.http.description.openapi import document


class OpenApi(Route):
    """The description of this server's API."""

    def get(self) -> Response:
        return json_response(document(bool(self.service.settings.api_keys), self.service.settings.path_prefix))


class Docs(Route):
    """The description for people; a page that needs nothing but this server."""

    def get(self) -> Response:
        return page_response("/docs")
