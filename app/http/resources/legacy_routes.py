"""``/``: the requests of the services that Forklift replaces, shape for shape. HTTP threads."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, request

from app import __version__
from app.core.errors import BadRequestError, InvalidParameterError
from app.http.answers.native_shapes import PromptShape, TextShape
from app.http.answers.system_types import Pointer
from app.http.application.error_envelope import json_response, prompt_error, use_error_form
from app.http.application.pages import page_response, prefers_page
from app.http.dialects.tgi.tgi_body import TgiRootBody
from app.http.dialects.tgi.tgi_routes import generate_at_root
from app.http.reading.body import (
    FORM_TYPES,
    JSON_TYPE,
    read_fields,
    read_form_field,
    read_object,
    read_raw,
    require_type,
)
from app.http.resources.encoder_routes import fill_mask
from app.http.resources.text_route import TextRoute
from app.http.schemas.encoder_bodies import FillMaskBody
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.serve.incoming.error_forms import tgi_error

# `curl -d text` without a header names the form's type, whatever the text is.
TEXT_TYPES = ("text/plain", FORM_TYPES[0])


class Root(TextRoute):
    """Code completion with ``data``, chat with ``prompt``, text-generation-inference's ``inputs``, masks in a text."""

    def get(self) -> Response:
        if prefers_page():
            return page_response("/")
        pointer: Pointer = {"name": "forklift", "version": __version__, "routes": routes()}
        return json_response(pointer, headers={"Vary": "Accept"})

    def put(self) -> Response:
        return self._continue({"data": read_form_field("data")})

    def post(self) -> Response:
        if request.mimetype in TEXT_TYPES:
            return fill_mask(self, read_fields(FillMaskBody, {"text": read_text()}))
        require_type(JSON_TYPE)
        return self._post_object(read_object())

    def _post_object(self, fields: dict[str, Any]) -> Response:
        given = {name for name in ("prompt", "data", "inputs") if fields.get(name) is not None}
        if given == {"prompt"}:
            use_error_form(prompt_error)
            body = read_fields(ChatBody, fields)
            return self.chat(body, PromptShape(body))
        if given == {"data"}:
            return self._continue(fields)
        if given == {"inputs"}:
            use_error_form(tgi_error)
            return generate_at_root(self, read_fields(TgiRootBody, fields))
        text = "send one of data (text to continue), prompt (a question) and inputs (text-generation-inference)"
        raise InvalidParameterError(text, param="data")

    def _continue(self, fields: dict[str, Any]) -> Response:
        """The answer starts with the prompt unless ``echo`` says no; nothing cuts it by default."""
        body = read_fields(CompleteBody, {**fields, "echo": True} if fields.get("echo") is None else fields)
        return self.complete(body, TextShape(body))


def routes() -> list[str]:
    """The other routes of this server, but for those with a name in their path."""
    return [rule.rule for rule in current_app.url_map.iter_rules() if not rule.arguments and rule.rule != "/"]


def read_text() -> str:
    """The body as text. Raises ``BadRequestError`` where it is not UTF-8."""
    require_type(*TEXT_TYPES)
    try:
        return read_raw().decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequestError("the body is not UTF-8") from None
