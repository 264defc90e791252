"""What the resource behind a request's path says of itself, before and beside any of its code. HTTP threads."""

from __future__ import annotations

from typing import Any

from flask import current_app, request
from werkzeug.exceptions import MethodNotAllowed


def of_route(name: str) -> Any:
    """The class attribute ``name`` of the resource at this path, whichever method was asked for; None without one."""
    view = current_app.view_functions.get(request.endpoint or _endpoint_of_path())
    return getattr(getattr(view, "view_class", None), name, None)


def _endpoint_of_path() -> str:
    """The endpoint at this path that takes other methods, where there is one."""
    failure = request.routing_exception
    if not isinstance(failure, MethodNotAllowed) or not failure.valid_methods:
        return ""
    # Only for paths that have been matched: an adapter of an odd host raises.
    adapter = current_app.create_url_adapter(request)
    if adapter is None:
        return ""
    endpoint, _ = adapter.match(method=next(iter(failure.valid_methods)))
    return str(endpoint)
