"""One server with two generation models of different families, a BERT, and one that is loaded on demand."""

from __future__ import annotations

import itertools
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.conftest import Stream
from tests.e2e.several import MASKED, NUM_NEW, PROMPTS, filled_tokens, greedy_text, start_several, tokens_of
from tests.service.conftest import wait_for
from tests.several import write_models_file

GENERATING = {"code": "codegen", "chat": "qwen2", "spare": "llama"}


pytestmark = pytest.mark.slow  # unit and contract tests have each of it with engines in process


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder):
    tables = {
        "code": {"path": model_folder("codegen"), "max_batch_size": 4},
        "chat": {"path": model_folder("qwen2"), "system_prompt": "Be brief."},
        "bert": {"path": model_folder("bert")},
        "spare": {"path": model_folder("llama"), "load": "on_demand", "idle_unload_s": 1},
    }
    yield from start_several(tmp_path_factory.mktemp("several"), tables, max_queue=100, max_new_tokens=900)


def test_the_models_are_listed_with_their_state(server):
    listed = {model["id"]: model["state"] for model in server.get("/v1/models")[1]["data"]}
    assert list(listed) == ["code", "chat", "bert", "spare"]
    assert [listed[name] for name in ("code", "chat", "bert")] == ["loaded"] * 3


def test_the_task_of_a_model_is_known_before_it_is_loaded(server):
    wait_for(lambda: server.state("spare") == "unloaded", "the idle model to be unloaded")
    shown = {model["id"]: model for model in server.get("/v1/capabilities")[1]["data"]}
    assert [shown[name]["task"] for name in shown] == ["generate", "generate", "fill-mask", "generate"]
    spare = shown["spare"]
    assert (spare["load"], spare["state"], spare["context_tokens"]) == ("on_demand", "unloaded", None)
    assert "/complete" in spare["routes"]
    assert [shown[name]["limits"]["max_batch_size"] for name in ("code", "chat")] == [4, 1]


def test_without_a_name_the_first_model_of_the_routes_task_answers(server, model_folder):
    assert server.post("/complete", json={"prompt": "a", "max_new_tokens": 2}).json()["model"] == "code"
    assert server.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).json()["model"] == "code"
    filled = server.post("/", data=MASKED[0], headers={"Content-Type": "text/plain"}).json()
    assert tokens_of(filled[:3]) == filled_tokens(model_folder("bert"), MASKED[0])
    assert server.post("/tokenize", json={"text": "a"}).status_code == 200


def test_a_name_that_is_none_is_404_and_a_model_of_another_task_400(server):
    assert server.complete("nobody").status_code == 404
    assert server.get("/v1/models/nobody")[0] == 404
    wrong = server.complete("bert")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "unsupported_parameter")
    embeddings = server.post("/v1/embeddings", json={"input": "a"})
    assert embeddings.status_code == 400, "no model of this task"


def test_tokens_are_those_of_the_named_model(server, model_folder):
    from transformers import AutoTokenizer

    for name, family in (("bert", "bert"), ("spare", "llama")):
        expected = AutoTokenizer.from_pretrained(model_folder(family))("the cat")["input_ids"]
        shown = server.post("/tokenize", json={"text": "the cat", "model": name}).json()
        assert shown["tokens"] == expected
        back = server.post("/detokenize", json={"tokens": expected, "model": name})
        assert back.status_code == 200


def test_mixed_load_gives_every_model_its_own_right_answers_and_starves_none(server, model_folder):
    # Long streams on both residents, and behind them rounds of everything else.
    streams = [Stream(server, 900, model=name) for name in ("code", "chat")]
    wanted = list(itertools.product(GENERATING, PROMPTS)) * 2

    def complete(pair: tuple[str, str]) -> object:
        return server.complete(*pair).json()

    def fill(text: str) -> object:
        return tokens_of(server.post("/fill-mask", json={"text": text, "top_k": 3}).json())

    texts = MASKED * 6
    expected = [greedy_text(model_folder(GENERATING[name]), prompt) for name, prompt in wanted]
    with ThreadPoolExecutor(12) as pool:
        answers, filled = list(pool.map(complete, wanted)), list(pool.map(fill, texts))
    assert [answer["model"] for answer in answers] == [name for name, _ in wanted]
    assert [answer["completion"] for answer in answers] == expected
    assert filled == [filled_tokens(model_folder("bert"), text) for text in texts]
    for stream in streams:
        assert stream.wait()[-1] == "data: [DONE]"
    row = server.rows()[0]
    assert (row["num_running"], row["num_waiting"]) == (0, 0)


def test_a_stream_goes_on_while_the_others_answer(server):
    stream = Stream(server, 900, model="code")
    wait_for(lambda: len(stream.lines) > 3, "the stream to flow")
    seen = len(stream.lines)
    assert server.complete("chat", num_new=NUM_NEW).status_code == 200
    assert server.post("/fill-mask", json={"text": MASKED[0]}).status_code == 200
    assert server.complete("spare", num_new=4).status_code == 200
    assert "data: [DONE]" not in stream.lines[:seen]
    assert stream.wait()[-1] == "data: [DONE]"


def test_log_lines_name_the_model_that_answered(server):
    server.post("/fill-mask", json={"text": MASKED[0]}, headers={"X-Request-Id": "who-filled"})
    server.post("/complete", json={"prompt": "a", "model": "none"}, headers={"X-Request-Id": "who-404"})
    lines = {line["request_id"]: line["model"] for line in server.log_lines("request")}
    assert (lines["who-filled"], lines["who-404"]) == ("bert", None)


def test_an_idle_model_is_unloaded_and_comes_back(server, model_folder):
    assert server.complete("spare").status_code == 200
    wait_for(lambda: server.state("spare") == "unloaded", "the idle model to be unloaded")
    num_loads = server.num_loads("spare")
    answer = server.complete("spare")
    assert answer.json()["completion"] == greedy_text(model_folder("llama"), PROMPTS[0])
    assert server.num_loads("spare") == num_loads + 1


@pytest.fixture(scope="module")
def troubled(tmp_path_factory, model_folder):
    """A good model, one that a test may cut short (``troubled.weights``), and one that fits nowhere.

    Its context of a million tokens needs a KV cache of a tebibyte.
    """
    scratch = tmp_path_factory.mktemp("troubled")
    bad = shutil.copytree(model_folder("gpt2"), scratch / "bad")
    huge = shutil.copytree(model_folder("llama"), scratch / "huge")
    config = json.loads((huge / "config.json").read_text())
    (huge / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2**20}))
    tables = {
        "good": {"path": model_folder("qwen2")},
        "bad": {"path": bad, "load": "on_demand"},
        "huge": {"path": huge, "load": "on_demand", "max_context_tokens": 2**20, "max_batch_size": 1024},
    }
    for server in start_several(scratch, tables):
        server.weights = bad / "model.safetensors"
        yield server


def test_a_failing_load_is_told_the_caller_in_general_and_the_log_in_full(troubled, model_folder):
    pid, weights = troubled.rows()[0]["pid"], troubled.weights
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    failed = troubled.complete("bad")
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "load_failed")
    assert int(failed.headers["Retry-After"]) >= 1
    assert str(weights.parent) not in failed.text and str(weights.parent) in troubled.log()
    assert troubled.state("bad") == "failed"
    assert troubled.complete("good").status_code == 200
    weights.write_bytes(whole)
    assert troubled.complete("bad").json()["completion"] == greedy_text(model_folder("gpt2"), PROMPTS[0])
    assert troubled.rows()[0]["pid"] == pid


def test_a_model_that_cannot_fit_is_a_clear_503(troubled):
    refused = troubled.complete("huge")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "insufficient_memory")
    assert "Retry-After" in refused.headers
    assert troubled.complete("good").status_code == 200


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({}, "has no tables"),
        ({"a": {"path": "/x", "dytpe": "auto"}}, "did you mean dtype?"),
    ],
    ids=["empty", "unknown key"],
)
def test_a_start_that_cannot_work_is_one_line_and_exit_code_3(tmp_path, tables, line, start_forklift):
    server = start_forklift(num_ready=0, models=write_models_file(tmp_path / "models.toml", tables))
    assert server.wait_for_exit() == 3
    told = [text for text in server.log().splitlines() if text.startswith("forklift: ")]
    assert len(told) == 1 and line in told[0]
    assert "Traceback" not in server.log()
