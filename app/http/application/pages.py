"""The pages for browsers, each put together to one file without outside resources. HTTP threads.

Styles and scripts lie beside the page and are written into it, so that a browser that has no API
key yet needs one answer only: the page itself, which holds a field for the key.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from flask import Flask, Response, request

FOLDER = Path(__file__).resolve().parents[1] / "playground"
HTML = "text/html"
PAGES = {"/": "playground.html", "/docs": "docs.html"}
_STYLE = re.compile(r'<link rel="stylesheet" href="([a-z_]+\.css)">')
_SCRIPT = re.compile(r'<script src="([a-z_]+\.js)"></script>')


@dataclass(frozen=True)
class Page:
    """A page and the only things that it may load and do."""

    html: bytes
    policy: str

    def headers(self) -> dict[str, str]:
        return {
            "Content-Security-Policy": self.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
            "Vary": "Accept",
        }


@functools.cache
def load_page(path: str) -> Page:
    """The page of a route."""
    text = (FOLDER / PAGES[path]).read_text(encoding="utf-8")
    styles = [_read(name) for name in _STYLE.findall(text)]
    scripts = [_read(name) for name in _SCRIPT.findall(text)]
    text = _STYLE.sub(lambda found: f"<style>{_read(found[1])}</style>", text)
    text = _SCRIPT.sub(lambda found: f"<script>{_read(found[1])}</script>", text)
    return Page(text.encode(), make_policy(styles, scripts))


def make_policy(styles: list[str], scripts: list[str]) -> str:
    """A content security policy: these styles and scripts, requests to this server, nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {_hashes(styles)}",
            f"script-src {_hashes(scripts)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def page_response(path: str) -> Response:
    """The page of a route as an answer."""
    page = load_page(path)
    return Response(page.html, headers=page.headers(), mimetype=HTML)


def prefers_page() -> bool:
    """Whether the caller asks for HTML rather than JSON, as browsers do and curl does not."""
    return request.accept_mimetypes.best_match(["application/json", HTML]) == HTML


def init_app(app: Flask) -> None:
    """Show browsers without a key the page all the same, under its 401, for the key to be typed in."""

    @app.after_request
    def show_page(response: Response) -> Response:
        if response.status_code == 401 and request.method == "GET" and request.path in PAGES and prefers_page():
            page = load_page(request.path)
            response.set_data(page.html)
            response.mimetype = HTML
            response.headers.update(page.headers())
        return response


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hashes(texts: list[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
