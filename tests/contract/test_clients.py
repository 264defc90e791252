"""Clients that we did not write: each published request is answered whole, in the form that the client reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.clients import CHAT, CLIENTS, COMPLETIONS, FIM, INFILL
from tests.contract.conftest import client_of
from tests.contract.describing import RoomyModel
from tests.contract.reading import DONE, events_of

TEXT = "Hello,\nworld"


@pytest.fixture
def handle(make_world):
    return client_of(make_world(model=RoomyModel()))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_clients_published_request_is_answered_whole(handle, client):
    response = handle.post(client.path, json=client.body)
    assert response.status_code == 200, response.get_data(as_text=True)
    assert "X-Ignored-Fields" not in response.headers
    if client.body.get("stream"):
        *events, done = events_of(response)
        assert done == DONE
        assert TEXT in streamed(client.path, events)
    else:
        assert TEXT in whole(client.path, response.get_json())


def whole(path, body):
    """The text where clients of this route read it."""
    match path:
        case "/infill":
            assert body["truncated"] is False
            return body["content"]
        case "/v1/completions":
            assert body["choices"][0]["finish_reason"] == "stop"
            return body["choices"][0]["text"]
        case _:
            assert body["choices"][0]["finish_reason"] == "stop"
            return body["choices"][0]["message"]["content"]


def streamed(path, events):
    """The text where clients of this route read its pieces."""
    choices = [choice for event in events for choice in event["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    if path == COMPLETIONS:
        return "".join(choice["text"] for choice in choices)
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_the_table_holds_every_route_that_clients_use_and_names_each_source():
    assert {client.path for client in CLIENTS} == {CHAT, COMPLETIONS, FIM, INFILL}
    assert len({client.name for client in CLIENTS}) == len(CLIENTS) >= 30
    assert all(client.source.startswith("https://") for client in CLIENTS)


# What a name says beside the program's own.
KINDS = (" stream", " structured", " agent", " with Mistral", "'s instruction", "'s edit", "'s autocomplete")
KINDS += ("'s OpenAI mode", "'s completions", "'s example")
NAMELESS = "an agent without tools"


def test_the_page_of_clients_names_each_of_them():
    text = (Path(__file__).parents[2] / "docs" / "use-with.md").read_text(encoding="utf-8").lower()
    for client in CLIENTS:
        name = next((client.name.removesuffix(kind) for kind in KINDS if client.name.endswith(kind)), client.name)
        assert name == NAMELESS or name.lower() in text, name


def test_probes_and_properties_are_where_llama_cpps_plugins_look(handle, make_world):
    health = handle.get("/health")
    assert (health.status_code, health.get_json()["status"]) == (200, "ok")
    props = handle.get("/props?model=scripted&autoload=false").get_json()
    assert props["default_generation_settings"]["n_ctx"] == 4096
    assert handle.get("/props?model=other").status_code == 404
    loading = client_of(make_world("loading"))
    assert (loading.get("/health").status_code, loading.get("/health").get_json()["status"]) == (503, "loading")
    assert loading.get("/props").status_code == 503


def test_health_needs_no_key_and_props_does(make_world):
    keyed = client_of(make_world(api_keys="k"))
    assert keyed.get("/health").status_code == 200
    assert keyed.get("/props").status_code == 401


def test_llama_cpps_name_for_text_is_taken_by_tokenize(handle):
    assert handle.post("/tokenize", json={"content": "ab"}).get_json()["count"] == 2
    assert handle.post("/tokenize", json={"content": "ab", "text": "ab"}).status_code == 400


def test_llama_vims_warm_up_of_a_chat_generates_nothing(handle):
    warm = {"id_slot": 0, "messages": [{"role": "user", "content": "hi"}], "samplers": [], "n_predict": 0}
    body = {**warm, "stream": False, "cache_prompt": True, "response_fields": [""]}
    assert handle.post(CHAT, json=body).status_code == 200
