"""Probes, the model list, and API keys."""

from __future__ import annotations

import pytest

from tests.contract.conftest import client_of
from tests.contract.reading import assert_envelope

KEYS = {"api_keys": "first, sécond"}


def test_livez_answers_whatever_the_state(make_world):
    for state in ("loading", "ready", "draining", "failed"):
        response = client_of(make_world(state)).get("/livez")
        assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("state", "status", "progress"), [("ready", 200, 1.0), ("loading", 503, 0.5), ("failed", 503, 1.0)]
)
def test_readyz_tells_state_progress_and_slots(make_world, state, status, progress):
    response = client_of(make_world(state)).get("/readyz")
    slot = {"slot": 0, "pid": 4321, "gpus": ["GPU-a"], "state": state, "num_running": 0, "num_waiting": 0}
    assert response.status_code == status
    body = response.get_json()
    [engine] = body.pop("engines")
    assert set(engine) == {"model", "task", "state", "engine", "dropped", "compiled", "compiling"}
    assert body == {"state": state, "progress": progress, "kv_cache": None, "slots": [slot]}


def test_readyz_is_ready_as_long_as_any_live_slot_is(make_world):
    world = make_world()
    from app.serve.board.slot_board import SlotBoard

    world.context.board = board = SlotBoard([("0",), ("1",), ("2",)])
    client = client_of(world)
    assert client.get("/readyz").get_json()["state"] == "loading"
    for pid, state in ((1, "failed"), (2, "draining")):
        board.set_state(board.lease(pid), state)
    assert (client.get("/readyz").status_code, client.get("/readyz").get_json()["state"]) == (503, "draining")
    board.set_state(board.lease(3), "ready", 1.0)
    body = client.get("/readyz").get_json()
    assert body["state"] == "ready" and [slot["state"] for slot in body["slots"]] == ["failed", "draining", "ready"]
    board.free(2)
    assert client.get("/readyz").status_code == 503


def test_readyz_counts_the_work_in_hand(client, world):
    waiting, running = world.context.admission.enter(), world.context.admission.enter()
    running.start()
    slot = client.get("/readyz").get_json()["slots"][0]
    assert (slot["num_running"], slot["num_waiting"]) == (1, 1)
    waiting.release()
    running.release()


def test_models_are_listed_as_openai_does(client):
    model = {"id": "scripted", "object": "model", "created": 1_700_000_000, "owned_by": "forklift", "state": "loaded"}
    assert client.get("/v1/models").get_json() == {"object": "list", "data": [model]}
    assert client.get("/v1/models/scripted").get_json() == model


def test_models_are_listed_while_they_load(make_world):
    (model,) = client_of(make_world("loading")).get("/v1/models").get_json()["data"]
    assert model["id"] == "scripted" and model["created"] > 1_700_000_000


def test_a_model_name_with_slashes_can_be_asked_for(make_world):
    client = client_of(make_world(model_name="org/model"))
    assert client.get("/v1/models/org/model").get_json()["id"] == "org/model"


@pytest.mark.parametrize("path", ["/", "/complete", "/chat", "/v1/models", "/v1/models/x", "/nope"])
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic first", "first", "Bearer f\xff"]
)
def test_with_keys_every_route_but_the_probes_needs_one(make_world, path, header):
    client = client_of(make_world(**KEYS))
    headers = {} if header is None else {"Authorization": header}
    for method in (client.get, client.post):
        response = method("/", headers=headers, environ_overrides={"PATH_INFO": path})
        assert_envelope(response, 401, "invalid_api_key")
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "header", ["Bearer first", "bearer first", "Bearer  first ", "Bearer sécond".encode().decode("latin-1")]
)
def test_any_of_the_keys_opens(make_world, header):
    client = client_of(make_world(**KEYS))
    response = client.post("/complete", json={"prompt": "a"}, headers={"Authorization": header})
    assert response.status_code == 200


@pytest.mark.parametrize("bearer", [None, "Bearer other", "Basic first"])
@pytest.mark.parametrize(("key", "status"), [("first", 200), ("sécond".encode().decode("latin-1"), 200), ("f", 401)])
def test_anthropics_header_opens_as_the_bearer_token_does(make_world, bearer, key, status):
    headers = {"X-Api-Key": key} | ({} if bearer is None else {"Authorization": bearer})
    response = client_of(make_world(**KEYS)).post("/complete", json={"prompt": "a"}, headers=headers)
    assert response.status_code == status


def test_probes_need_no_key(make_world):
    client = client_of(make_world(**KEYS))
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
