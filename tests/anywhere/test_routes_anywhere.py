"""Answers of every kind of route."""

from __future__ import annotations

import pytest

from tests.anywhere.target import Target

GREEDY = {"max_new_tokens": 8, "temperature": 0}


def test_a_completion_has_every_field(target: Target):
    answer = target.post("/complete", json={"prompt": "def f(", "recordid": 7, **GREEDY})
    body = answer.json()
    assert answer.status_code == 200 and body["completion"] and body["recordid"] == 7
    assert {"completion", "finish_reason", "usage", "timings", "model", "request_id"} <= set(body)
    assert body["usage"]["completion_tokens"] <= 8
    assert all(float(answer.headers[name]) >= 0 for name in ("X-Queue-Ms", "X-Ttft-Ms", "X-Total-Ms"))
    assert answer.headers["X-Worker"].isdigit()


def test_one_request_id_is_taken_over_and_returned_once(target: Target):
    answer = target.post("/complete", json={"prompt": "a", **GREEDY}, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"] == "mine-1"
    made = target.get("/livez", headers={"X-Request-Id": "not well formed"}).headers["X-Request-Id"]
    assert made and made != "not well formed" and "," not in made


def test_greedy_answers_are_the_same_again(target: Target):
    answers = [target.post("/complete", json={"prompt": "import ", **GREEDY}).json() for _ in range(3)]
    assert len({answer["completion"] for answer in answers}) == 1


def test_a_chat_answers_in_every_form(target: Target):
    messages = [{"role": "user", "content": "Hi"}]
    native = target.post("/chat", json={"prompt": "Hi", **GREEDY}).json()
    assert native["status"] == 200 and native["history"][-1] == ["Hi", native["response"]]
    body = {"messages": messages, "max_tokens": 8, "temperature": 0}
    openai = target.post("/v1/chat/completions", json=body).json()
    assert openai["object"] == "chat.completion" and openai["choices"][0]["message"]["role"] == "assistant"
    anthropic = target.post("/v1/messages", json={"model": openai["model"], **body}).json()
    assert anthropic["type"] == "message" and anthropic["content"][0]["type"] == "text"


def test_openais_completions_answer(target: Target):
    body = target.post("/v1/completions", json={"prompt": ["a", "b"], "max_tokens": 4, "n": 2}).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]


def test_holes_are_filled_where_the_model_can(target: Target):
    answer = target.post("/infill", json={"prefix": "def f(x):\n    ", "suffix": "\n", "max_new_tokens": 4})
    if answer.status_code == 400:
        pytest.skip("the model fills no holes")
    assert answer.json()["text"].startswith("def f(x):\n    ")


def test_the_old_requests_at_the_root_answer(target: Target):
    assert target.post("/", json={"data": "def f("}).json().startswith("def f(")
    assert set(target.post("/", json={"prompt": "Hi"}).json()) == {"response", "status", "time"}
    assert target.request("PUT", "/", data={"data": "def f("}).json().startswith("def f(")


def test_text_becomes_tokens_and_text_again(target: Target):
    tokens = target.post("/tokenize", json={"text": "def café():"}).json()["tokens"]
    assert target.post("/detokenize", json={"tokens": tokens}).json()["text"] == "def café():"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_probes_need_no_key(target: Target, path: str):
    answer = target.get(path, headers={"Authorization": ""})
    assert answer.status_code == 200 and answer.json()


def test_the_server_describes_itself(target: Target):
    names = [model["id"] for model in target.get("/v1/models").json()["data"]]
    assert names and target.get(f"/v1/models/{names[0]}").json()["id"] == names[0]
    assert target.get("/v1/capabilities").status_code == 200
    assert target.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "forklift_" in target.get("/metrics").text
    for path in ("/docs", "/"):
        page = target.get(path, headers={"Accept": "text/html"})
        assert page.status_code == 200 and page.headers["Content-Type"].startswith("text/html")


def test_head_and_options_are_answered_without_a_body(target: Target):
    head = target.request("HEAD", "/livez")
    assert head.status_code == 200 and head.content == b""
    assert "POST" in target.request("OPTIONS", "/complete").headers["Allow"]


def test_a_path_and_query_arrive_as_they_were_sent(target: Target):
    answer = target.get("/v1/models/no%2Fsuch%20caf%C3%A9?a=%20b")
    assert answer.status_code == 404 and "no/such café" in answer.json()["error"]["message"]
