"""Flask-RESTful with our own error handling. The package has no type stubs: it is named only here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response
from flask_restful import Api, Resource

from app.core.system.native import guarded
from app.http.application.error_envelope import error_response
from app.http.application.service import Service


class JsonApi(Api):
    """Answers every failure of the whole application with the envelope.

    Flask-RESTful's ``Api`` takes over Flask's handlers, then picks between its own and Flask's by
    route, and re-raises under TESTING and debug. Here there is one answer in all those cases.
    """

    def handle_error(self, e: Exception) -> Response:
        return error_response(e)

    def error_router(self, original_handler: Callable[[Exception], Any], e: Exception) -> Response:
        return self.handle_error(e)


class Route(Resource):
    """Base of all resources: holds what the routes of one worker share."""

    def __init__(self, service: Service):
        self.service = service

    def dispatch_request(self, *args: Any, **kwargs: Any) -> Any:
        """Tokenizers, templates' regexes and compilers read what callers send: a panic of theirs is this request's."""
        with guarded():
            return super().dispatch_request(*args, **kwargs)
