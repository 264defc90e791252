"""The Python client against a real port: answers, streams, errors, and when it asks again."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask, Response, request

from app import client as client_module
from app.client import (
    Client,
    ClientError,
    LoadingError,
    ModelNotFoundError,
    NoAnswerError,
    OverloadedError,
    RequestError,
    RequestTimeoutError,
    StreamEndedError,
    UnsupportedParameterError,
)
from app.core import errors
from app.http.application.factory import create_app
from app.http.description.openapi import error_classes
from tests.contract.describing import RoomyModel
from tests.contract.loopback import serving
from tests.contract.real import RealWorld
from tests.contract.rpc_bind import unused_address
from tests.contract.text_tasks import text_server
from tests.waiting import wait_until

TEXT = "Hello,\nworld"


@pytest.fixture
def world(make_world):
    return make_world(model=RoomyModel(), grpc_bind=unused_address())


@pytest.fixture(params=["http", "grpc"])
def url(request, world):
    """The world's address, over either transport."""
    if request.param == "grpc":
        pytest.importorskip("grpc", reason="the extra grpc is not installed")
        from tests.contract.rpc_door import open_door

        with open_door(world.context):
            yield f"grpc://{world.settings.grpc_bind}"
        return
    with serving(create_app(world.context, ping_interval_s=0.05)) as url:
        yield url


@pytest.fixture
def client(url):
    with Client(url, max_retries=0) as client:
        yield client


@pytest.fixture
def pauses(monkeypatch):
    """Pauses that the client made, without waiting for them."""
    found = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


class Scripted:
    """A server that answers by script, and counts; the last answer is repeated."""

    def __init__(self, *answers):
        self.app = Flask("scripted", static_folder=None)
        self.headers = []
        self.app.add_url_rule("/complete", view_func=self.answer, methods=["POST"])
        self._answers = list(answers)

    def answer(self):
        self.headers.append(dict(request.headers))
        status, headers, body = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return Response(body if isinstance(body, str) else json.dumps(body), status, headers)

    @property
    def num_asked(self):
        return len(self.headers)


def failure(error, **headers):
    body = {"error": error.body(), "request_id": "r1"}
    return error.status, {**error.headers(), **headers}, body


DETAILS = {
    "finish_reason": "stop",
    "usage": {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    "timings": {"queue_ms": 1.0, "ttft_ms": 2.0, "total_ms": 3.0},
    "model": "m",
    "request_id": "r",
}
DONE = (200, {}, {"completion": "x", **DETAILS})


FOLDER = Path(client_module.__file__).parent
# A program that calls itself `app`, too; says what it and the client are.
STRANGER = """
import os
import shutil
import subprocess
import sys
import app
from {name} import Client, OverloadedError
from {name}.connection.endpoint import Endpoint
assert issubclass(OverloadedError, Exception) and Client("http://127.0.0.1:1")
print(app.__file__, Client.__module__, sum(name.startswith("app.") for name in sys.modules))
"""


# Imported for `grpc://` alone.
OF_GRPC = ("google", "grpc")


def test_it_needs_nothing_of_the_package_but_requests():
    """kazoo is imported by what reaches ZooKeeper, and only when that is asked for."""
    roots = set()
    for path in FOLDER.rglob("*.py"):
        if path.stem == "zookeeper_link":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                roots.add(node.module)
    assert {name.split(".")[0] for name in roots} - sys.stdlib_module_names == {"requests", *OF_GRPC}


@pytest.mark.parametrize("name", ["forklift_client", "copied"])
def test_a_program_with_an_app_of_its_own_can_use_it(tmp_path, name):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    shutil.copytree(FOLDER, tmp_path / "copied")
    (tmp_path / "main.py").write_text(STRANGER.format(name=name), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parents[1])}
    ran = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    expected = [str(tmp_path / "app" / "__init__.py"), f"{name}.server_client", "0"]
    assert ran.stdout.split() == expected, ran.stderr


def test_every_error_of_the_server_has_its_class():
    for one in error_classes():
        mirror = getattr(client_module, one.__name__)
        assert (mirror.status, mirror.code) == (one.status, one.code)
        assert [base.__name__ for base in mirror.__mro__ if issubclass(base, RequestError)] == [
            base.__name__ for base in one.__mro__ if issubclass(base, errors.RequestError)
        ]


def test_a_completion_is_typed(client, world):
    answer = client.complete("abc", temperature=0.5, recordid="r7", logprobs=1)
    assert (answer.text, answer.finish_reason, answer.model) == (TEXT, "stop", "scripted")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3 + answer.usage.completion_tokens)
    assert answer.timings.total_ms >= answer.timings.ttft_ms >= answer.timings.queue_ms >= 0
    assert answer.recordid == "r7" and len(answer.request_id) == 32
    assert b"".join(token.bytes for token in answer.logprobs).decode() == TEXT
    assert answer.logprobs[0].top[0].token == "H"
    assert world.inference.jobs[0].params.temperature == 0.5


def test_several_completions_are_all_there(client):
    answer = client.complete("abc", n=3)
    assert [choice.text for choice in answer.choices] == [TEXT] * 3


def test_a_stream_joins_to_the_whole(client):
    *pieces, last = client.complete("abc", stream=True)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert last.text == "" and last.answer.text == TEXT and last.answer.usage.prompt_tokens == 3


def test_a_chat_goes_on_with_its_history(client, world):
    first = client.chat("one")
    second = client.chat("two", history=first.history)
    assert second.history == (("one", TEXT), ("two", TEXT))
    *_, last = client.chat(messages=[{"role": "user", "content": "three"}], stream=True)
    assert last.answer.history == (("three", TEXT),)
    assert [message["content"] for message in world.model.encoded[1]] == ["one", TEXT, "two"]


def test_holes_are_filled(client):
    answer = client.infill("a", "b", "c")
    assert (answer.text, answer.infills) == (f"a{TEXT}b{TEXT}c", (TEXT, TEXT))
    *pieces, last = client.infill("a", "b", stream=True)
    assert "".join(piece.text for piece in pieces) == TEXT and last.answer.infills == (TEXT,)


def test_masks_and_vectors(model_folder):
    bert, sentence = RealWorld(model_folder("bert")), RealWorld(model_folder("sentence"))
    with serving(create_app(bert.context)) as bert_url, serving(create_app(sentence.context)) as sentence_url:
        first, second = Client(bert_url).fill_mask("a [MASK] b [MASK]", top_k=3)
        assert len(first) == len(second) == 3 and first[0].score >= first[1].score
        assert len(Client(bert_url).fill_mask("[MASK]")) == 1
        with pytest.raises(ModelNotFoundError):
            Client(bert_url).fill_mask("[MASK]", model="another")
        with pytest.raises(ModelNotFoundError):
            Client(sentence_url).embed("a", model="another")
        found = Client(sentence_url).embed(["a", "b"])
        assert len(found.vectors) == 2 and found.prompt_tokens > 0
    bert.stop()
    sentence.stop()


@pytest.fixture
def about_texts(model_folder, tmp_path):
    with text_server(model_folder, tmp_path) as url:
        yield Client(url)


def test_each_task_of_texts_has_its_call(about_texts):
    [[best, _]] = about_texts.classify("a b", top_k=2)
    assert best.label in ("bad", "fair", "good") and 0 < best.score < 1
    assert len(about_texts.classify(["a", "b"])) == 2
    ranked = about_texts.rerank("a", ["b", "c d", "e"], top_n=2)
    assert len(ranked) == 2 and ranked[0].score >= ranked[1].score and ranked[0].index in range(3)
    labels = about_texts.zero_shot("a", ["b", "c"])
    assert {one.label for one in labels} == {"b", "c"} and sum(one.score for one in labels) == pytest.approx(1)
    text = "def load(folder)"
    for entity in about_texts.entities(text, ignore_labels=[]):
        assert text[entity.start : entity.end] and entity.kind in ("O", "PER", "LOC")
    assert about_texts.entities(text, "none", ignore_labels=[])[0].kind in ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    for found in about_texts.answer("a", "b c d", top_k=2):
        assert "b c d"[found.start : found.end] == found.text
    translated = about_texts.translate(["def load", "a"], "de", "en")
    assert len(translated) == 2 and about_texts.translate("a", "de", "en") == translated[1:]
    assert len(about_texts.summarize("def load", max_new_tokens=5)) == 1
    with pytest.raises(UnsupportedParameterError) as refused:
        about_texts.rerank("a", ["b"], rank_fields=["c"])
    assert refused.value.param == "rank_fields"


def test_a_refusal_is_its_own_class_and_is_not_asked_again(client, pauses):
    with pytest.raises(client_module.InvalidParameterError) as caught:
        client.complete("a", temperature=-1)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_parameter", "temperature")
    assert caught.value.request_id and pauses == []


def test_the_key_is_sent(make_world):
    with serving(create_app(make_world(api_keys="k").context)) as url:
        assert Client(url, "k").complete("a").text == TEXT
        with pytest.raises(client_module.UnauthorizedError):
            Client(url, "wrong").complete("a")


def test_an_overloaded_server_is_asked_again_when_it_says(pauses):
    busy = failure(errors.OverloadedError("full", retry_after_s=7))
    server = Scripted(busy, busy, DONE)
    with serving(server.app) as url:
        assert Client(url).complete("a").text == "x"
    assert pauses == [7.0, 7.0]


def test_retries_are_bounded_in_number_and_in_pause(pauses):
    server = Scripted(failure(errors.LoadingError("loading", retry_after_s=7)))
    with serving(server.app) as url:
        with pytest.raises(LoadingError):
            Client(url).complete("a")
        assert (server.num_asked, pauses) == (3, [7.0, 7.0])
        with pytest.raises(LoadingError):
            Client(url, max_pause_s=5).complete("a")
    assert server.num_asked == 4


def test_a_timeout_is_not_asked_again(pauses):
    server = Scripted(failure(errors.RequestTimeoutError("late")))
    with serving(server.app) as url, pytest.raises(RequestTimeoutError):
        Client(url, timeout_s=2.5).complete("a")
    assert server.num_asked == 1 and pauses == []
    assert server.headers[0]["X-Request-Timeout-S"] == "2.500"


@pytest.mark.parametrize(("advice", "error", "num_asked"), [("true", errors.InternalError(), 3), ("false", None, 1)])
def test_advice_goes_before_the_status(pauses, advice, error, num_asked):
    server = Scripted(failure(error or errors.OverloadedError("full"), **{"X-Should-Retry": advice}))
    with serving(server.app) as url, pytest.raises(RequestError):
        Client(url).complete("a")
    assert server.num_asked == num_asked
    assert all(0.25 <= pause <= 1 for pause in pauses)


def test_a_failure_in_the_middle_of_a_stream_is_raised(client, world):
    world.inference.script = ["Hel", 0.1, errors.ShuttingDownError("going")]
    stream = client.complete("a", stream=True)
    assert next(stream).text == "Hel"
    with pytest.raises(client_module.ShuttingDownError) as caught:
        next(stream)
    assert caught.value.status == 503 and caught.value.request_id


def test_an_overload_before_a_stream_is_asked_again(pauses):
    events = f'data: {{"completion": "x"}}\n\ndata: {json.dumps({"completion": "", **DETAILS})}\n\ndata: [DONE]\n\n'
    server = Scripted(failure(errors.OverloadedError("full", retry_after_s=1)), (200, {}, events))
    with serving(server.app) as url:
        *_, last = Client(url).complete("a", stream=True)
    assert last.answer.text == "x" and pauses == [1.0]


def test_a_stream_without_its_end_is_not_taken_for_whole():
    server = Scripted((200, {}, 'data: {"completion": "x"}\n\n'))
    with serving(server.app) as url:
        stream = Client(url).complete("a", stream=True)
        assert next(stream).text == "x"
        with pytest.raises(StreamEndedError):
            next(stream)


def test_a_server_that_is_not_there_is_tried_again_then_told(pauses):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(NoAnswerError):
        Client(f"http://127.0.0.1:{port}").complete("a")
    assert len(pauses) == 2


def test_a_foreign_answer_is_an_error_of_its_status(pauses):
    server = Scripted((502, {}, "<html>bad gateway</html>"))
    with serving(server.app) as url, pytest.raises(RequestError, match="bad gateway") as caught:
        Client(url, max_retries=0).complete("a")
    assert caught.value.status == 502 and isinstance(caught.value, ClientError)


def test_leaving_a_stream_stops_the_server(client, world):
    world.inference.script = ["a", *[0.02] * 500]
    stream = client.complete("a", stream=True)
    next(stream)
    stream.close()
    wait_until(lambda: world.num_places() == 0)


def test_an_overloaded_engine_is_told_by_its_class(client, world):
    world.inference.refuse_with = errors.OverloadedError("full", retry_after_s=3)
    with pytest.raises(OverloadedError, match="full"):
        client.complete("a")
