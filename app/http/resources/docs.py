"""``/openapi.json``, and ``/docs``, which shows it. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.http.errors import json_response
from app.http.openapi import document
from app.http.pages import page_response
from app.http.restful import Route


class OpenApi(Route):
    """The description of this server's API."""

    def get(self) -> Response:
        return json_response(document(bool(self.service.settings.api_keys), self.service.settings.path_prefix))


class Docs(Route):
    """The description for people; a page that needs nothing but this server."""

    def get(self) -> Response:
        return page_response("/docs")
