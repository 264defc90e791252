"""The bridge between ASGI and the application: bodies, deadlines, callers that leave, threads that end."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from app.cluster.bridge.answer_pipe import AnswerPipe, ReaderGoneError, UnsentBytes
from app.cluster.bridge.wsgi_bridge import PIECE_BYTES, AnswerCutError, WsgiBridge
from app.core.settings import load_settings
from app.http.application.connection import is_client_gone
from tests.unit.cluster.asgi_client import Exchange

PATIENCE_S = 10


class Counts:
    """What the bridge counts of requests that the application never saw."""

    def __init__(self):
        self.requests: list[tuple[object, int, str | None]] = []

    def count_request(self, route, status, code):
        self.requests.append((route, status, code))


def make_bridge(app, counts=None, **settings):
    named = {f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()}
    return WsgiBridge(app, load_settings(named), counts or Counts())


def echo(environ, start_response):
    """Tells of the request as the application sees it."""
    body = environ["wsgi.input"].read()
    seen = {name: value for name, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"body": body.decode(), "environ": seen}).encode()]


def exchange(bridge, *args, feed=(b"",), **kwargs):
    """One whole request, its body in pieces."""

    async def run():
        one = Exchange(*args, **kwargs)
        for at, piece in enumerate(feed):
            one.feed(piece, more=at < len(feed) - 1)
        return await one.run(bridge)

    return asyncio.run(run())


def test_a_chunked_body_arrives_whole_with_its_length():
    answer = exchange(make_bridge(echo), headers={"Transfer-Encoding": "chunked"}, feed=(b"ab", b"", b"cd"))
    seen = json.loads(answer.body)
    assert (answer.status, seen["body"], seen["environ"]["CONTENT_LENGTH"]) == (200, "abcd", "4")
    assert "HTTP_TRANSFER_ENCODING" not in seen["environ"]
    assert answer.has_ended


def test_the_environment_is_what_gunicorn_makes():
    headers = {"Content-Type": "text/plain", "X-Request-Id": "one", "X_Request_Id": "forged"}
    scope = {"raw_path": b"/v1/caf%C3%A9%FF", "query_string": b"a=1&b=%20"}
    seen = json.loads(exchange(make_bridge(echo), "PUT", "/v1/café\ufffd", headers, **scope).body)["environ"]
    assert seen["PATH_INFO"].encode("latin-1") == b"/v1/caf\xc3\xa9\xff"
    assert (seen["REQUEST_METHOD"], seen["QUERY_STRING"], seen["SCRIPT_NAME"]) == ("PUT", "a=1&b=%20", "")
    assert (seen["CONTENT_TYPE"], seen["HTTP_X_REQUEST_ID"]) == ("text/plain", "one")
    assert (seen["REMOTE_ADDR"], seen["SERVER_PROTOCOL"]) == ("10.0.0.9", "HTTP/1.1")


def test_a_path_above_the_application_is_cut_off():
    scope = {"root_path": "/llm", "path": "/llm/chat", "raw_path": b"/llm/chat"}
    seen = json.loads(exchange(make_bridge(echo), **scope).body)["environ"]
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/llm", "/chat")


@pytest.mark.parametrize("declares", [True, False], ids=["declared", "chunked"])
def test_the_application_is_told_of_a_body_above_the_limit_and_gets_none_of_it(declares):
    headers = {"Content-Length": "30"} if declares else {}
    answer = exchange(make_bridge(echo, max_body_bytes=20), headers=headers, feed=(b"a" * 15, b"a" * 15))
    seen = json.loads(answer.body)
    assert (seen["body"], seen["environ"]["CONTENT_LENGTH"]) == ("", "30")


def test_a_body_that_does_not_come_in_time_is_answered_408_in_our_form():
    counts = Counts()
    bridge = make_bridge(echo, counts, body_timeout_s=0.05)

    async def run():
        return await Exchange().feed(b"ab", more=True).run(bridge)

    answer = asyncio.run(run())
    body = json.loads(answer.body)
    assert (answer.status, body["error"]["code"]) == (408, "body_timeout")
    assert answer.headers["x-request-id"] == body["request_id"]
    assert counts.requests == [(None, 408, "body_timeout")]


def test_a_body_without_a_valid_key_is_not_kept():
    bridge = make_bridge(echo, api_keys="secret")
    assert json.loads(exchange(bridge, feed=(b"abc",)).body)["body"] == ""
    known = {"Authorization": "Bearer secret"}
    assert json.loads(exchange(bridge, headers=known, feed=(b"abc",)).body)["body"] == "abc"


def test_many_large_bodies_together_are_refused_and_counted_out_again(monkeypatch):
    monkeypatch.setattr("app.cluster.bridge.request_body.MAX_BUFFERED_BYTES", 0)
    bridge = make_bridge(echo, max_body_bytes=10)

    async def run():
        waiting = [Exchange().feed(b"a" * 10, more=True) for _ in range(9)]
        tasks = [asyncio.ensure_future(one.run(bridge)) for one in waiting]
        done, _ = await asyncio.wait(tasks, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        refused = [task.result().status for task in done]
        for one in waiting:
            one.feed()
        return refused, [one.status for one in await asyncio.gather(*tasks)]

    refused, statuses = asyncio.run(run())
    assert refused == [503] and sorted(statuses) == [200] * 8 + [503]
    assert exchange(bridge, feed=(b"a" * 10,)).status == 200


def test_a_client_that_leaves_while_it_sends_reaches_no_application():
    def fail(environ, start_response):
        raise AssertionError

    async def run():
        one = Exchange().feed(b"ab", more=True)
        one.leave()
        return await one.run(make_bridge(fail))

    assert asyncio.run(run()).sent == []


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_the_application_learns_that_a_client_left_and_its_thread_ends(is_streamed):
    begun, closed = threading.Event(), threading.Event()
    left_s = []

    def wait(environ, start_response):
        begun.set()
        end_s = time.monotonic() + PATIENCE_S
        if is_streamed:
            start_response("200 OK", [])
            yield b"first"
        while not is_client_gone(environ) and time.monotonic() < end_s:
            time.sleep(0.01)
        left_s.append(time.monotonic())
        try:
            yield b"nobody reads this"
        finally:
            closed.set()

    async def run():
        one = Exchange().feed()
        task = asyncio.ensure_future(one.run(make_bridge(wait)))
        while not begun.is_set() or (is_streamed and not one.body):
            await asyncio.sleep(0.01)
        one.leave()
        started_s = time.monotonic()
        await task
        return one, started_s

    one, started_s = asyncio.run(run())
    assert closed.is_set() and left_s[0] - started_s < PATIENCE_S
    assert one.body == (b"first" if is_streamed else b"")


def test_a_request_that_the_server_gives_up_is_one_whose_client_left():
    """So Ray ends a request: by cancelling the coroutine."""
    has_seen = threading.Event()

    def wait(environ, start_response):
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if is_client_gone(environ):
                has_seen.set()
                break
            time.sleep(0.01)
        return []

    async def run():
        task = asyncio.ensure_future(Exchange().feed().run(make_bridge(wait)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.to_thread(has_seen.wait, PATIENCE_S)

    assert asyncio.run(run())


def test_a_reader_that_takes_nothing_is_dropped_and_holds_no_thread():
    is_made = threading.Event()

    def large(environ, start_response):
        start_response("200 OK", [])
        yield b"a" * (3 * PIECE_BYTES)
        is_made.set()

    async def run():
        one = Exchange().feed()
        one.is_reading.clear()
        with pytest.raises(AnswerCutError):
            await one.run(make_bridge(large, write_timeout_s=0.05))
        return one

    assert asyncio.run(run()).sent == [] and is_made.is_set()


def test_large_answers_arrive_in_pieces_and_whole():
    def large(environ, start_response):
        start_response("200 OK", [("Content-Length", str(3 * PIECE_BYTES + 1))])
        return [b"a" * (3 * PIECE_BYTES + 1)]

    answer = exchange(make_bridge(large))
    assert len(answer.body) == 3 * PIECE_BYTES + 1
    assert max(len(message.get("body", b"")) for message in answer.sent) == PIECE_BYTES


def test_what_is_not_read_is_bounded_over_all_answers_and_the_stalest_is_given_up():
    async def run():
        unsent = UnsentBytes(limit=100)
        stale, fresh = AnswerPipe(unsent), AnswerPipe(unsent)
        stale.put(b"a" * 60)
        fresh.put(b"a" * 30)
        fresh.sent(10)
        fresh.put(b"a" * 30)
        with pytest.raises(ReaderGoneError):
            stale.put(b"a")
        for _ in range(3):
            fresh.put(b"a" * 15)
            fresh.sent(15)
        return stale.is_gone(), fresh.is_gone()

    assert asyncio.run(run()) == (True, False)


def test_a_failure_before_the_first_byte_is_a_500_in_our_form_and_tells_nothing():
    def fail(environ, start_response):
        raise RuntimeError("the secret")

    answer = exchange(make_bridge(fail))
    assert answer.status == 500 and json.loads(answer.body)["error"]["code"] == "internal_error"
    assert b"secret" not in answer.body


def test_a_failure_in_the_middle_of_an_answer_cuts_it_off():
    def fail(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        raise RuntimeError

    async def run():
        one = Exchange().feed()
        with pytest.raises(AnswerCutError):
            await one.run(make_bridge(fail))
        return one

    one = asyncio.run(run())
    assert one.body == b"first" and not one.has_ended


def test_probes_are_answered_while_every_thread_is_busy():
    release = threading.Event()

    def busy(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] != "/livez":
            assert release.wait(PATIENCE_S)
        return [b"ok"]

    async def run():
        bridge = make_bridge(busy, http_threads=1)
        slow = [asyncio.ensure_future(Exchange().feed().run(bridge)) for _ in range(3)]
        probe = await Exchange("GET", "/livez").feed().run(bridge)
        release.set()
        return probe.body, [one.body for one in await asyncio.gather(*slow)]

    assert asyncio.run(run()) == (b"ok", [b"ok"] * 3)


def test_start_and_end_of_the_server_are_acknowledged():
    incoming, sent = ["lifespan.startup", "lifespan.shutdown"], []

    async def receive():
        return {"type": incoming.pop(0)}

    async def send(message):
        sent.append(message["type"])

    asyncio.run(make_bridge(echo)({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
