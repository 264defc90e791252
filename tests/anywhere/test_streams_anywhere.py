"""Streams: they come in pieces, end as they should, and tell of failures."""

from __future__ import annotations

from tests.anywhere.target import LONG, Target, assert_error, events

GREEDY = {"max_new_tokens": 24, "temperature": 0, "ignore_eos": True}


def test_a_stream_says_what_the_whole_answer_says(target: Target):
    whole = target.post("/complete", json={"prompt": "import ", **GREEDY}).json()
    streamed = target.post("/complete", json={"prompt": "import ", "stream": True, **GREEDY}, stream=True)
    assert streamed.headers["Content-Type"].startswith("text/event-stream")
    found = list(events(streamed))
    assert found.pop() == "[DONE]"
    assert "".join(one["completion"] for one in found) == whole["completion"]


def test_openais_stream_ends_with_its_usage(target: Target):
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "stream": True}
    answer = target.post("/v1/chat/completions", json=body | {"stream_options": {"include_usage": True}}, stream=True)
    *chunks, usage, done = events(answer)
    assert done == "[DONE]" and usage["usage"]["total_tokens"] > 0 and chunks[0]["object"] == "chat.completion.chunk"


def test_a_stream_comes_while_it_is_made(target: Target):
    answer = target.post("/complete", json={"stream": True, **LONG}, stream=True)
    stream = events(answer)
    next(stream)
    assert target.is_busy() or any(target.is_busy() for _ in range(20))
    answer.close()
    target.wait_until(target.is_idle, "the place is free")


def test_bare_text_is_streamed_where_it_is_asked_for(target: Target):
    body = {"prompt": "import ", **GREEDY}
    whole = target.post("/complete", json=body).json()["completion"]
    text = target.post("/complete", json=body | {"stream": True}, headers={"Accept": "text/plain"})
    assert text.headers["Content-Type"].startswith("text/plain") and text.content.decode() == whole


def test_a_refused_stream_is_an_ordinary_error(target: Target):
    body = {"prompt": "a", "stream": True, "model": "none"}
    assert_error(target.post("/complete", json=body), 404, "model_not_found", "model")


def test_a_failure_in_the_middle_is_an_event_and_no_end(target: Target):
    headers = {"X-Request-Timeout-S": "1"}
    answer = target.post("/complete", json={"stream": True, **LONG}, headers=headers, stream=True)
    found = list(events(answer))
    assert answer.status_code == 200 and found[-1]["error"]["code"] == "request_timeout"
