"""``/openapi.json``, ``/docs``, which shows it, and ``/markdown``, which the playground asks. HTTP threads."""

from __future__ import annotations

import functools

from flask import Response
from markdown_it import MarkdownIt

from app.http.answers.system_types import Markup
from app.http.application.error_envelope import json_response
from app.http.application.pages import page_response
from app.http.application.restful import Route
from app.http.description.openapi import document
from app.http.reading.body import read_body
from app.http.schemas.markdown_body import MarkdownBody


class OpenApi(Route):
    """The description of this server's API."""

    def get(self) -> Response:
        return json_response(document(bool(self.service.settings.api_keys), self.service.settings.path_prefix))


class Docs(Route):
    """The description for people; a page that needs nothing but this server."""

    def get(self) -> Response:
        return page_response("/docs")


class Markdown(Route):
    """Text as a model writes it, as markup that a page may show."""

    def post(self) -> Response:
        body = read_body(MarkdownBody)
        made: Markup = {"html": rendered(body.text)}
        return json_response(made)


def rendered(text: str) -> str:
    """The text as HTML, without the styles of tables' columns, which the page's policy refuses."""
    tokens = renderer().parse(text)
    for token in tokens:
        token.attrs.pop("style", None)
    html: str = renderer().renderer.render(tokens, renderer().options, {})
    return html


@functools.cache
def renderer() -> MarkdownIt:
    """CommonMark with tables; HTML in it stays text, links lead nowhere but to http, https and mail, and nothing of
    another server is fetched for an image."""
    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
