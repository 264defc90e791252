"""The pages for browsers: who gets them, and what they may do."""

from __future__ import annotations

import base64
import configparser
import hashlib
import re
from pathlib import Path

import pytest

from app.http.application.pages import FOLDER, PAGES
from tests.contract.conftest import client_of
from tests.contract.reading import assert_envelope

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}
SOURCES = re.compile(r"""(?:src|href)=["']?([^"'> ]+)|\burl\(|@import|https?://""")


def test_browsers_get_the_playground_and_others_the_pointer(client):
    assert client.get("/", headers=BROWSER).mimetype == "text/html"
    for accept in ("*/*", "application/json", None):
        answer = client.get("/", headers={"Accept": accept} if accept else {})
        assert answer.get_json()["name"] == "forklift"
    assert client.get("/").headers["Vary"] == client.get("/", headers=BROWSER).headers["Vary"] == "Accept"


def test_every_file_of_the_pages_is_used_and_packaged():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).resolve().parents[2] / "setup.cfg")
    assert setup["options.package_data"]["app.http"] == f"{FOLDER.name}/*"
    pages = "".join((FOLDER / name).read_text(encoding="utf-8") for name in PAGES.values())
    others = {path.name for path in FOLDER.iterdir()} - set(PAGES.values())
    assert others and all(f'"{name}"' in pages for name in others)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_is_one_file_that_names_no_other_server(client, path):
    page = client.get(path, headers=BROWSER).get_data(as_text=True)
    assert {found[1] for found in SOURCES.finditer(page)} <= {"data:,", "./", "docs", "openapi.json"}
    assert "innerHTML" not in page and "eval(" not in page and "insertAdjacentHTML" not in page
    assert page.count("DOMParser") == (path == "/"), "only what /markdown made"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_may_run_its_own_scripts_only_and_ask_its_own_server_only(client, path):
    response = client.get(path, headers=BROWSER)
    policy = dict(rule.partition(" ")[::2] for rule in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'self'"
    page = response.get_data(as_text=True)
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside]
        assert inside and policy[name].split() == [f"'sha256-{digest}'" for digest in digests]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_browser_without_a_key_is_refused_with_a_page_to_type_it_in(make_world, path):
    client = client_of(make_world(api_keys="k"))
    response = client.get(path, headers=BROWSER)
    assert (response.status_code, response.mimetype) == (401, "text/html")
    assert response.headers["WWW-Authenticate"] == "Bearer" and "default-src 'none'" in str(response.headers)
    assert b'id="key"' in response.data
    assert_envelope(client.get(path), 401, "invalid_api_key")
    for other in ("/v1/capabilities", "/openapi.json", "/metrics"):
        assert_envelope(client.get(other, headers=BROWSER), 401, "invalid_api_key")
    assert_envelope(client.post("/", json={"data": "a"}, headers=BROWSER), 401, "invalid_api_key")
