"""Who may call from a browser: names in ``Host``, pages of other origins, preflights.

HTTP threads, before the key is looked at. A page that anybody opens can send requests to a server on the same machine;
without a name that is allowed (DNS rebinding) or an origin that is (a form that posts to us) they are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import Flask, Response, request

from app.core.errors import ForbiddenError, MisdirectedError
from app.core.parsing.hosts import is_address, is_allowed_host
from app.serve.incoming.gate import PROBES, SCRAPE

# Methods that change nothing and cost little; a browser lets any page send them, and read nothing.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITES = ("same-origin", "none")
MAX_AGE_S = 600
IDS = "X-Request-Id, Request-Id"
EXPOSED = f"{IDS}, X-Worker, X-Load, X-Queue-Ms, X-Ttft-Ms, X-Total-Ms, X-Ignored-Fields, X-Should-Retry, Retry-After"
_FIELD_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+(?:\s*,\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*")


def init_app(app: Flask, allowed_hosts: Sequence[str], cors_origins: Sequence[str]) -> None:
    """Refuse what a browser should not have sent; tell browsers what they may. Empty ``allowed_hosts``: any."""
    origins = frozenset(origin.rstrip("/").lower() for origin in cors_origins)

    @app.before_request
    def require_own_page() -> Response | None:
        if allowed_hosts and "HTTP_HOST" in request.environ and not _is_named(allowed_hosts):
            raise MisdirectedError("this server does not answer to that Host; see FORKLIFT_ALLOWED_HOSTS")
        if request.method == "OPTIONS":
            return _preflight()
        if request.method not in SAFE_METHODS and not _is_own_page() and not _is_open_to(origins):
            raise ForbiddenError("pages of other origins may not call this server; see FORKLIFT_CORS_ORIGINS")
        return None

    @app.after_request
    def tell_browser(response: Response) -> Response:
        if origins:
            response.vary.add("Origin")
        if _is_open_to(origins):
            response.headers["Access-Control-Allow-Origin"] = "*" if "*" in origins else request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
            _tell_preflight(response)
        return response


def _is_named(allowed: Sequence[str]) -> bool:
    """Whether ``Host`` is allowed. Orchestrators and scrapers cannot choose it: they ask for an address."""
    is_watched = request.path in PROBES or request.path == SCRAPE
    return is_allowed_host(_host(), allowed) or (is_watched and is_address(_host()))


def _host() -> str:
    """As it was sent: Werkzeug's own property refuses some and drops the port of others."""
    return str(request.environ["HTTP_HOST"])


def _is_own_page() -> bool:
    """Whether no page, or a page of this server, sent the request. Clients that are no browsers send neither header."""
    if (site := request.headers.get("Sec-Fetch-Site")) is not None:
        return site.strip().lower() in OWN_SITES
    origin = request.headers.get("Origin")
    return origin is None or origin.partition("://")[2].lower() == request.environ.get("HTTP_HOST", "").lower()


def _is_open_to(origins: frozenset[str]) -> bool:
    origin = request.headers.get("Origin")
    return origin is not None and ("*" in origins or origin.lower() in origins)


def _preflight() -> Response:
    """The methods of the route. Needs no key: browsers send none with this question."""
    methods = request.url_rule.methods if request.url_rule is not None else None
    if methods is None:
        raise request.routing_exception or MisdirectedError("there is no such route")
    return Response(status=204, headers={"Allow": ", ".join(sorted(methods))})


def _tell_preflight(response: Response) -> None:
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return
    response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
    response.headers["Access-Control-Max-Age"] = str(MAX_AGE_S)
    response.vary.update(["Access-Control-Request-Method", "Access-Control-Request-Headers"])
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    if _FIELD_NAMES.fullmatch(wanted):
        response.headers["Access-Control-Allow-Headers"] = wanted
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        response.headers["Access-Control-Allow-Private-Network"] = "true"
