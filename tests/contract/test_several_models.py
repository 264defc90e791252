"""Several models behind the routes: who answers, what is told of each, and waiting for one that loads."""

from __future__ import annotations

import socket
import threading

import pytest
from structlog.testing import capture_logs

from tests.contract.reading import assert_envelope
from tests.contract.real import RealWorld
from tests.several import write_models_file
from tests.thinned import few_of
from tests.waiting import wait_until

BODY = {"prompt": "def f(", "max_new_tokens": 3, "ignore_eos": True}
LIMIT_S = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory, model_folder):
    file = write_models_file(
        tmp_path_factory.mktemp("several") / "models.toml",
        {
            "bert": {"path": model_folder("bert")},
            "org/code": {"path": model_folder("codegen"), "max_new_tokens": 200, "default_new_tokens": 5},
            "chat": {"path": model_folder("qwen2"), "system_prompt": "Be brief."},
            "vectors": {"path": model_folder("sentence"), "load": "on_demand", "idle_unload_s": 0},
            "spare": {"path": model_folder("gpt2"), "load": "on_demand", "idle_unload_s": 0},
        },
    )
    world = RealWorld(models=file, max_queue=20)
    yield world
    world.stop()


@pytest.fixture
def client(world):
    return world.client()


def handle(world, name):
    return next(one for one in world.inference.handles if one.name == name)


@pytest.fixture
def gate(world, monkeypatch):
    """Loads wait until it is set."""
    wait_until(lambda: handle(world, "spare").state == "unloaded", LIMIT_S)
    pool = world.inference._pool
    gate, prepare = threading.Event(), pool._prepare
    monkeypatch.setattr(pool, "_prepare", lambda *a, **k: (gate.wait(LIMIT_S), prepare(*a, **k))[1])
    yield gate
    gate.set()
    wait_until(lambda: all(one.state in ("loaded", "unloaded") for one in world.inference.handles), LIMIT_S)


@pytest.mark.parametrize(
    ("path", "body", "model"),
    few_of(
        [
            ("/complete", BODY, "org/code"),
            ("/complete", {**BODY, "model": "chat"}, "chat"),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "model": "chat"}, "chat"),
            ("/complete", {**BODY, "model": "spare"}, "spare"),
            ("/v1/completions", {"prompt": "a", "max_tokens": 2}, "org/code"),
            ("/v1/completions", {"prompt": "a", "max_tokens": 2, "model": "chat"}, "chat"),
            ("/v1/embeddings", {"input": "the cat"}, "vectors"),
        ],
        3,
    ),
)
def test_the_model_that_answers_is_named_in_answer_and_log(client, path, body, model):
    with capture_logs() as lines:
        answer = client.post(path, json=body)
    assert (answer.status_code, answer.get_json()["model"]) == (200, model)
    [line] = [line for line in lines if line["event"] == "request"]
    assert line["model"] == model


def test_the_older_forms_reach_the_model_of_their_task(client):
    assert client.post("/", json={"data": "x = ", "max_new_tokens": 2}).get_json().startswith("x = ")
    filled = client.post("/", data="the [MASK] sat", content_type="text/plain").get_json()
    assert {"score", "token", "token_str", "sequence"} == set(filled[0])


@pytest.mark.parametrize("path", ["/complete", "/fill-mask", "/v1/embeddings", "/tokenize", "/infill"])
def test_an_unknown_name_is_404_everywhere(client, path):
    fields = {"/fill-mask": {"text": "[MASK]"}, "/v1/embeddings": {"input": "a"}, "/tokenize": {"text": "a"}}
    body = fields.get(path, {"prefix": "a", "suffix": "b"} if path == "/infill" else BODY)
    assert_envelope(client.post(path, json={**body, "model": "code"}), 404, "model_not_found", "model")


def test_a_model_of_another_task_is_refused_before_it_is_loaded(client, world, gate):
    refused = client.post("/complete", json={**BODY, "model": "vectors"})
    assert_envelope(refused, 400, "unsupported_parameter", "model")
    assert "embeddings" in refused.get_json()["error"]["message"]
    assert handle(world, "vectors").state == "unloaded"


def test_bounds_and_prompts_are_the_models_own(client):
    assert (
        client.post("/complete", json={"prompt": "a", "ignore_eos": True}).get_json()["usage"]["completion_tokens"] == 5
    )
    lowered = client.post("/complete", json={"prompt": "a", "max_new_tokens": 201, "ignore_eos": True}).get_json()
    assert lowered["usage"]["completion_tokens"] == 200
    bounds = {one["id"]: one["limits"]["max_new_tokens"] for one in client.get("/v1/capabilities").get_json()["data"]}
    assert (bounds["org/code"], bounds["chat"]) == (200, None)


def test_a_system_prompt_of_one_model_is_not_the_others(client, world):
    asked = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    counts = [
        client.post("/v1/chat/completions", json={**asked, "model": name}).get_json()["usage"]["prompt_tokens"]
        for name in ("org/code", "chat")
    ]
    system = {"role": "system", "content": "Be brief."}
    with_system = handle(world, "chat").model.encode_chat([system, *asked["messages"]])
    without = handle(world, "org/code").model.encode_chat(asked["messages"])
    assert counts == [len(without), len(with_system)]


def test_every_model_is_listed_in_the_order_of_the_file_with_its_state(client, world):
    listed = client.get("/v1/models").get_json()["data"]
    assert [one["id"] for one in listed] == ["bert", "org/code", "chat", "vectors", "spare"]
    assert {one["state"] for one in listed[:3]} == {"loaded"}
    wait_until(lambda: handle(world, "spare").state == "unloaded", LIMIT_S)
    assert client.get("/v1/models/spare").get_json()["state"] == "unloaded"
    assert client.get("/v1/models/org/code").get_json()["id"] == "org/code"


def test_what_only_a_loaded_model_tells_is_null_until_then(client, gate):
    shown = {one["id"]: one for one in client.get("/v1/capabilities").get_json()["data"]}
    spare, chat = shown["spare"], shown["chat"]
    unknown = ("context_tokens", "vocab_size", "dtype", "engine", "supports", "kv_cache")
    assert [spare[name] for name in unknown] == [None] * 6
    assert (spare["task"], spare["load"], chat["load"]) == ("generate", "on_demand", "resident")
    assert spare["routes"] == chat["routes"] and None not in [chat[name] for name in unknown]


def test_tokens_of_a_model_on_demand_load_it(client, world):
    tokens = client.post("/tokenize", json={"text": "def f", "model": "spare"}).get_json()["tokens"]
    assert client.post("/detokenize", json={"tokens": tokens, "model": "spare"}).get_json() == {"text": "def f"}
    wait_until(lambda: handle(world, "spare").state == "unloaded", LIMIT_S)


@pytest.mark.parametrize(("limit", "code"), [("0.3", "request_timeout")])
def test_a_deadline_that_passes_while_the_model_loads_is_504(client, world, gate, limit, code):
    late = client.post("/complete", json={**BODY, "model": "spare"}, headers={"X-Request-Timeout-S": limit})
    assert_envelope(late, 504, code)
    assert late.headers["X-Should-Retry"] == "false"
    assert world.num_places() == 0


def test_the_queues_limit_holds_while_the_model_loads(world, gate):
    from app.http.application.factory import create_app
    from app.serve.context import WorkerContext

    hasty = world.settings.model_copy(update={"queue_timeout_s": 0.2})
    context = WorkerContext(hasty, 0, world.board, world.context.admission, world.inference)
    late = create_app(context).test_client().post("/complete", json={**BODY, "model": "spare"})
    assert_envelope(late, 504, "queue_timeout")


def test_a_caller_who_leaves_while_the_model_loads_gives_up_its_place(client, world, gate):
    ours, theirs = socket.socketpair()
    theirs.close()
    answer = client.post("/complete", json={**BODY, "model": "spare"}, environ_overrides={"gunicorn.socket": ours})
    ours.close()
    assert answer.status_code == 499
    assert world.num_places() == 0


def test_waiting_for_a_load_is_time_in_the_queue(client, gate):
    threading.Timer(0.4, gate.set).start()
    answer = client.post("/complete", json={**BODY, "model": "spare"})
    assert answer.status_code == 200
    assert answer.get_json()["timings"]["queue_ms"] >= 300


def test_a_waiting_request_counts_as_waiting(client, world, gate):
    thread = threading.Thread(target=client.post, args=("/complete",), kwargs={"json": {**BODY, "model": "spare"}})
    thread.start()
    wait_until(lambda: world.board.rows()[0].num_waiting == 1)
    assert client.get("/readyz").status_code == 200
    gate.set()
    thread.join(LIMIT_S)
    assert world.num_places() == 0
