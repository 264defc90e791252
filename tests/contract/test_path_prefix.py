"""Below a path prefix everything works as it does without; only the probes answer beside it."""

from __future__ import annotations

import re

import pytest

from app.http.application.factory import create_app
from tests.contract.doubles import World


@pytest.fixture
def world():
    world = World(path_prefix="/llm")
    yield world
    world.inference.stop()


@pytest.fixture
def client(world):
    return create_app(world.context).test_client()


def test_routes_lie_below_the_prefix(client):
    assert client.get("/llm/v1/models").status_code == 200
    assert client.post("/llm/complete", json={"prompt": "a", "max_new_tokens": 2}).status_code == 200
    assert client.post("/llm", json={"data": "a"}).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/llm/livez", "/llm/readyz"])
def test_probes_answer_with_the_prefix_and_without(client, path):
    assert client.get(path).status_code in (200, 503)


@pytest.mark.parametrize("path", ["/", "/complete", "/v1/models", "/llmx/v1/models", "/llm2", "/metrics"])
def test_what_lies_beside_the_prefix_is_no_route(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json["error"]["code"]) == (404, "route_not_found")
    assert "/llm" in answer.json["error"]["message"]
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


def test_the_pages_find_their_server(client):
    """Every address in them is relative, and the page's own ends with a slash."""
    answer = client.get("/llm", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["Location"]) == (308, "/llm/")
    for path in ("/llm/", "/llm/docs"):
        html = client.get(path, headers={"Accept": "text/html"}).text
        assert "<html" in html
        assert not re.findall(r"""(?:href|src|fetch\()=?["'`]/""", html)


def test_the_description_says_where_the_server_lies(client):
    assert client.get("/llm/openapi.json").json["servers"] == [{"url": "/llm"}]
