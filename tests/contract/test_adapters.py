"""An adapter is a model name of its own; the list of them changes while the server runs."""

from __future__ import annotations

import shutil

import pytest

from app.core.work.adapters import AdapterName
from app.serve.board.adapter_list import AdapterList
from app.serve.board.slot_board import SlotBoard
from tests.contract.real import RealWorld
from tests.tiny_adapters import save_adapter

KEY = {"Authorization": "Bearer secret"}
ASKED = {"prompt": "def f(x):", "max_new_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def root(model_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("team-a", "team-b")):
        save_adapter(root / name, model_folder("llama"), "llama", seed=seed)
    (root / "notes.txt").write_text("no adapter")
    return root


@pytest.fixture(scope="module")
def world(model_folder, root):
    world = RealWorld(
        model_folder("llama"), adapters=root, max_batch_size=4, model_name="base", api_keys="secret", dtype="float32"
    )
    yield world
    world.stop()


@pytest.fixture
def client(world):
    return world.client()


def complete(client, model: str):
    return client.post("/complete", json={**ASKED, "model": model}, headers=KEY)


def names(client) -> list[str]:
    return [one["id"] for one in client.get("/v1/models", headers=KEY).json["data"]]


def change(client, what: str, **body: object):
    return client.post(f"/v1/{what}_lora_adapter", json=body, headers=KEY)


def test_adapters_are_models_of_one_base(client):
    assert names(client) == ["base", "team-a", "team-b"]
    assert client.get("/v1/models/team-a", headers=KEY).json["parent"] == "base"
    answers = {name: complete(client, name).json for name in names(client)}
    assert [answer["model"] for answer in answers.values()] == ["base", "team-a", "team-b"]
    assert len({answer["completion"] for answer in answers.values()}) == 3
    [told] = client.get("/v1/capabilities", headers=KEY).json["data"]
    assert told["adapters"] == {"names": ["team-a", "team-b"], "max_bytes": 1 << 30}
    chat = {"model": "team-b", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert client.post("/v1/chat/completions", json=chat, headers=KEY).json["model"] == "team-b"


def test_one_is_loaded_and_unloaded_while_the_server_runs(client, root, model_folder):
    assert complete(client, "team-c").status_code == 404
    assert change(client, "load", lora_name="team-c").status_code == 404
    save_adapter(root / "team-c", model_folder("llama"), "llama", seed=7)
    answer = change(client, "load", lora_name="team-c", lora_path=str(root / "team-c"))
    assert answer.json == {"status": "loaded", "lora_name": "team-c", "model": "base"}
    before = complete(client, "team-c").json["completion"]
    again = change(client, "load", lora_name="team-c")
    assert (again.status_code, again.json["error"]["param"]) == (400, "lora_name")
    shutil.rmtree(root / "team-c")
    save_adapter(root / "team-c", model_folder("llama"), "llama", seed=8)
    assert complete(client, "team-c").json["completion"] == before
    assert change(client, "load", lora_name="team-c", load_inplace=True).status_code == 200
    assert complete(client, "team-c").json["completion"] != before
    assert change(client, "unload", lora_name="team-c").json["status"] == "unloaded"
    assert complete(client, "team-c").status_code == 404
    assert change(client, "unload", lora_name="team-c").status_code == 404
    shutil.rmtree(root / "team-c")
    assert names(client) == ["base", "team-a", "team-b"]


@pytest.mark.parametrize("name", ["../team-a", "/etc", ".", "..", "base", "team-a/../team-b", "a\0b", "notes.txt"])
def test_names_lead_nowhere_else(client, name):
    assert change(client, "load", lora_name=name).status_code in (400, 404)


def test_a_path_elsewhere_is_refused(client, tmp_path):
    answer = change(client, "load", lora_name="team-a", lora_path=str(tmp_path), load_inplace=True)
    assert (answer.status_code, answer.json["error"]["param"]) == (400, "lora_path")


def test_a_broken_adapter_costs_its_own_requests_only(client, root):
    (root / "broken").mkdir()
    (root / "broken" / "adapter_config.json").write_text("{}")
    assert change(client, "load", lora_name="broken").status_code == 200
    answer = complete(client, "broken")
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "adapter_failed")
    assert complete(client, "team-a").status_code == 200
    assert change(client, "unload", lora_name="broken").status_code == 200
    shutil.rmtree(root / "broken")


def test_without_keys_the_list_stays(model_folder, root):
    world = RealWorld(model_folder("llama"), adapters=root, model_name="base")
    try:
        for what in ("load", "unload"):
            answer = world.client().post(f"/v1/{what}_lora_adapter", json={"lora_name": "team-a"})
            assert (answer.status_code, answer.json["error"]["code"]) == (403, "api_keys_needed")
        assert names(world.client()) == ["base", "team-a", "team-b"]
    finally:
        world.stop()


def test_the_list_is_one_for_all_who_share_it():
    board = SlotBoard([()])
    shared = AdapterList(board, [("base", AdapterName("a", "/x/a"))])
    before = shared.read()
    shared.add("base", "b", "/x/b", "")
    assert sorted(shared.read()["base"]) == ["a", "b"] and sorted(before["base"]) == ["a"]
    first = shared.read()["base"]["b"]
    shared.add("base", "b", "/x/b", "")
    assert shared.read()["base"]["b"] != first
    shared.remove("base", "a")
    assert sorted(shared.read()["base"]) == ["b"]
