"""Streams: event shapes, line breaks, pings, bare text, failures in the middle."""

from __future__ import annotations

import threading

import pytest

from app.core.errors import RequestTimeoutError
from app.http.answers.stream import StreamCutError
from tests.contract.doubles import Gate
from tests.contract.reading import DONE, assert_envelope, events_of
from tests.waiting import wait_until

HARD_TEXT = ["a\nb", "\r\n\r\n", "data: x\n\n", "\u2028\u0085\x00", "\U0001f600 [DONE]", " "]


def stream(client, path="/complete", body=None, **options):
    return client.post(path, json={"prompt": "ab", "stream": True, **(body or {})}, **options)


def test_pieces_then_a_last_event_then_done(client):
    response = stream(client, body={"recordid": "r1"})
    *pieces, last, done = events_of(response)
    assert response.mimetype == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert {"X-Request-Id", "X-Queue-Ms", "X-Ttft-Ms", "X-Worker"} <= set(response.headers.keys())
    assert "".join(piece["completion"] for piece in pieces) == "Hello,\nworld"
    assert all(set(piece) == {"completion"} for piece in pieces)
    assert done == DONE
    assert last["finish_reason"] == "stop" and last["completion"] == ""
    assert last["usage"]["total_tokens"] == 5 and set(last["timings"]) == {"queue_ms", "ttft_ms", "total_ms"}
    assert (last["recordid"], last["request_id"]) == ("r1", response.headers["X-Request-Id"])


def test_chat_streams_response_pieces_and_ends_with_the_history(client):
    *pieces, last, done = events_of(stream(client, "/chat"))
    assert "".join(piece["response"] for piece in pieces) == "Hello,\nworld"
    assert last["history"] == [["ab", "Hello,\nworld"]]
    assert done == DONE


def test_echo_streams_the_prompt_first(client):
    assert events_of(stream(client, body={"echo": True}))[0] == {"completion": "ab"}


def test_text_survives_whatever_is_in_it(client, world):
    world.inference.script = HARD_TEXT
    *pieces, _, done = events_of(stream(client))
    assert "".join(piece["completion"] for piece in pieces) == "".join(HARD_TEXT)
    assert done == DONE


def test_pieces_arrive_before_the_sequence_ends(client, world):
    gate = Gate()
    world.inference.script = ["first", gate, "second"]
    response = stream(client)
    chunks = response.iter_encoded()
    assert next(chunks) == b'data: {"completion": "first"}\n\n'
    gate.set()
    assert b"second" in b"".join(chunks)
    response.close()


def test_events_that_are_there_together_are_one_write(client, world):
    gate = Gate()
    world.inference.script = ["a", gate, *"bcdefgh"]
    response = stream(client)
    chunks = response.iter_encoded()
    next(chunks)
    gate.set()
    wait_until(lambda: world.inference.jobs[0].has_ended)
    assert next(chunks).startswith(b'data: {"completion": "bcdefgh"}\n\n')
    assert list(chunks) == []
    response.close()


def test_silence_is_filled_with_comment_lines(client, world):
    gate = Gate()
    world.inference.script = ["a", gate, "b"]
    response = stream(client)
    chunks = response.iter_encoded()
    next(chunks)
    assert [next(chunks), next(chunks)] == [b": ping\n\n"] * 2
    gate.set()
    assert b"[DONE]" in b"".join(chunks)
    response.close()


@pytest.mark.parametrize("accept", ["text/plain", "application/octet-stream", "text/plain, */*;q=0.1"])
def test_bare_text_for_those_who_ask(client, world, accept):
    gate = Gate()
    world.inference.script = [*HARD_TEXT[:2], gate, *HARD_TEXT[2:]]
    response = stream(client, body={"echo": True}, headers={"Accept": accept})
    assert response.mimetype == accept.split(",")[0]
    # Long enough for some pings to be due, which bare text must not show.
    threading.Timer(0.15, gate.set).start()
    assert response.get_data().decode() == "ab" + "".join(HARD_TEXT)
    response.close()


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream", "text/event-stream, text/plain", "application/json"])
def test_events_for_everybody_else(client, accept):
    assert events_of(stream(client, headers={"Accept": accept}))[-1] == DONE


def test_a_failure_in_the_middle_is_an_event_and_no_done_follows(client, world):
    gate = Gate()
    world.inference.script = ["a", gate, RequestTimeoutError("the request took longer than its time limit")]
    response = stream(client)
    chunks = response.iter_encoded()
    first = next(chunks)
    gate.set()
    rest = b"".join(chunks)
    response.close()
    assert response.status_code == 200 and b'"a"' in first
    assert b'"code": "request_timeout"' in rest and response.headers["X-Request-Id"].encode() in rest
    assert b"[DONE]" not in rest
    world.inference.script = ["fine"]
    assert events_of(stream(client))[-1] == DONE


def test_a_failure_before_the_first_byte_is_a_real_status(client, world):
    world.inference.script = [RequestTimeoutError("too late")]
    response = stream(client)
    assert_envelope(response, 504, "request_timeout")
    assert response.headers["X-Should-Retry"] == "false"


def test_our_own_bug_in_the_middle_is_a_generic_event(client, world, monkeypatch):
    gate = Gate()
    world.inference.script = ["a", gate, "b"]
    response = stream(client)
    chunks = response.iter_encoded()
    next(chunks)
    monkeypatch.setattr("app.http.answers.native_shapes.details", lambda *_: 1 / 0)
    gate.set()
    rest = b"".join(chunks)
    response.close()
    assert b'"code": "internal_error"' in rest and b"ZeroDivision" not in rest and b"[DONE]" not in rest


def test_an_empty_completion_is_still_a_whole_stream(client, world):
    world.inference.script = []
    last, done = events_of(stream(client))
    assert last["usage"]["completion_tokens"] == 0 and done == DONE


def test_the_head_and_comments_come_while_the_first_token_is_awaited(client, world):
    world.inference.before_start = gate = Gate()
    response = stream(client)
    chunks = response.iter_encoded()
    assert [next(chunks), next(chunks)] == [b": ping\n\n"] * 2
    assert response.status_code == 200 and "X-Ttft-Ms" not in response.headers
    gate.set()
    assert b"[DONE]" in b"".join(chunks)
    response.close()


def test_what_fails_after_the_head_is_an_event(client, world):
    world.inference.before_start = gate = Gate()
    world.inference.script = [RequestTimeoutError("too late")]
    response = stream(client)
    chunks = response.iter_encoded()
    next(chunks)
    gate.set()
    rest = b"".join(chunks)
    response.close()
    assert b'"code": "request_timeout"' in rest and b"[DONE]" not in rest


def test_comments_come_while_pieces_have_nothing_to_show(client, world):
    """A tool call is held back until it is whole; the model writes all the while."""
    world.inference.script = ["a", *[0.01, ""] * 60, "b"]
    text = stream(client).get_data()
    assert text.count(b": ping") >= 2
    assert b"[DONE]" in text


def test_bare_text_sends_its_head_in_time_and_is_cut_where_it_fails(client, world):
    world.inference.before_start = gate = Gate()
    world.inference.script = ["a", RequestTimeoutError("too late")]
    response = stream(client, headers={"Accept": "text/plain"})
    chunks = response.iter_encoded()
    assert next(chunks) == b""
    gate.set()
    assert b"".join(iter(lambda: next(chunks) or next(chunks), b"a")) == b""
    with pytest.raises(StreamCutError):
        list(chunks)
    response.close()
    wait_until(lambda: world.num_places() == 0)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\u009b", "\u001c"])
def test_no_line_reader_breaks_an_event(client, world, separator):
    world.inference.script = [f"a{separator}b"]
    response = stream(client)
    raw = response.get_data().decode()
    assert separator not in raw
    assert events_of(stream(client))[0] == {"completion": f"a{separator}b"}
