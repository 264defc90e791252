"""``/v1/capabilities``, and the KV cache in ``/readyz``."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.contract.conftest import client_of
from tests.contract.reading import assert_envelope


@dataclass(frozen=True)
class KvMemory:
    bytes_per_token: int = 100
    max_bytes: int = 6400


@pytest.fixture
def described(client):
    (model,) = client.get("/v1/capabilities").get_json()["data"]
    return model


def test_the_model_is_described(described):
    assert (described["id"], described["task"], described["context_tokens"]) == ("scripted", "generate", 64)
    assert (described["dtype"], described["quantization"]) == ("float32", "none")
    assert (described["tool_calls"], described["reasoning"]) == ("hermes", None)
    assert described["supports"] == {"chat": True, "tools": True, "infill": True}
    assert described["limits"]["max_new_tokens"] is None
    assert described["limits"]["num_draft_tokens"] == 0
    assert described["memory"]["process_rss_bytes"] > 2**20


def test_parameters_have_the_bounds_that_are_enforced(described, client):
    route = described["routes"]["/complete"]
    assert (route["temperature"]["minimum"], route["temperature"]["maximum"]) == (0, 100)
    assert (route["n"]["minimum"], route["n"]["maximum"]) == (1, 16)
    for name, field in route.items():
        if "maximum" in field and field["type"] == ["number"]:
            above = client.post("/complete", json={"prompt": "a", name: field["maximum"] + 1})
            assert_envelope(above, 400, "invalid_parameter", name)


def test_required_fields_are_told(described):
    assert described["routes"]["/v1/completions"]["prompt"]["required"]
    assert not described["routes"]["/v1/completions"]["max_tokens"]["required"]


def test_the_kv_cache_is_shown_where_there_is_one(make_world):
    world = make_world()
    client = client_of(world)
    assert client.get("/readyz").get_json()["kv_cache"] is None
    world.inference.kv_memory = KvMemory()
    cache = {"bytes_per_token": 100, "max_bytes": 6400}
    assert client.get("/readyz").get_json()["kv_cache"] == cache
    (model,) = client.get("/v1/capabilities").get_json()["data"]
    assert model["kv_cache"] == cache


def test_the_way_that_a_model_is_run_is_shown_with_what_failed_its_check(make_world):
    world = make_world()
    world.inference.engine_name, world.inference.dropped = "batched", ("fused", "mixed")
    client = client_of(world)
    (model,) = client.get("/v1/capabilities").get_json()["data"]
    assert (model["engine"], model["dropped"]) == ("batched", ["fused", "mixed"])
    assert client.get("/readyz").get_json()["engines"] == [
        {
            **{"model": model["id"], "task": "generate", "state": "loaded", "engine": "batched"},
            **{"dropped": ["fused", "mixed"], "compiled": False, "compiling": False},
        }
    ]


def test_while_the_model_loads_nothing_is_known_of_it(make_world):
    client = client_of(make_world("loading"))
    assert_envelope(client.get("/v1/capabilities"), 503, "loading")
    assert client.get("/readyz").get_json()["kv_cache"] is None
