"""The client against what is no answer of ours: always a ``ClientError``, in bounded time, and never with the key."""

from __future__ import annotations

import copy
import gc
import gzip
import json
import time
import traceback

import pytest

from app.client import (
    Client,
    ClientError,
    ForeignAnswerError,
    InsufficientMemoryError,
    NoAnswerError,
    OverloadedError,
    SetupError,
    StreamEndedError,
    UnauthorizedError,
)
from app.client.connection.endpoint import Endpoint
from app.core import errors
from tests.unit.cli.odd_server import (
    CLOSE,
    DETAILS,
    EVENTS,
    JSON,
    ODD,
    OK,
    chunked,
    events_of,
    odd_server,
    status,
    whole,
)
from tests.waiting import wait_until

KEY = "sesame-KEY-ключ"
STREAM_ONLY = [name for name in ODD if name.startswith(("an event", "a stream", "an end"))]


def calls(client: Client):
    return {
        "complete": lambda: client.complete("a"),
        "stream": lambda: list(client.complete("a", stream=True)),
        "chat": lambda: client.chat("a"),
        "fill_mask": lambda: client.fill_mask("a"),
        "embed": lambda: client.embed("a"),
        "classify": lambda: client.classify("a"),
        "rerank": lambda: client.rerank("a", ["b"]),
        "zero_shot": lambda: client.zero_shot("a", ["b"]),
        "entities": lambda: client.entities("a"),
        "answer": lambda: client.answer("a", "b"),
        "translate": lambda: client.translate("a", "de"),
        "summarize": lambda: client.summarize(["a"]),
    }


@pytest.fixture(scope="module")
def server():
    with odd_server() as running:
        yield running


@pytest.fixture
def no_pauses(monkeypatch):
    found = []
    monkeypatch.setattr("time.sleep", found.append)
    return found


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_answer_of_ours_is_a_client_error(server, name, no_pauses):
    server.answer = ODD[name]
    for call in calls(Client(server.url, KEY, timeout_s=20, max_retries=0)).values():
        with pytest.raises(ClientError) as caught:
            call()
        message = str(caught.value)
        assert message and len(message) < 900 and KEY not in "".join(traceback.format_exception(caught.value))


def paths_in(value, path=()):
    """The way to every value in a JSON value, itself first."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from paths_in(one, (*path, name))


def replaced(value, path, new):
    if not path:
        return new
    found = copy.deepcopy(value)
    place = found
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = new
    return found


# What may be anything, or be left out, as an answer of ours may.
OPTIONAL = {"recordid", "logprobs", "choices", "infills", "history", "top_logprobs", "bytes"}


@pytest.mark.parametrize("path", [path for path in paths_in(DETAILS) if path], ids=str)
def test_a_value_of_another_kind_is_told_in_every_field(server, path):
    client = Client(server.url, max_retries=0, timeout_s=20)
    for new in (None, True, [1, {"a": None}], {"a": [1]}, "t", 1.5, 10**30):
        body = replaced(DETAILS, path, new)
        old = DETAILS
        for name in path:
            old = old[name]
        server.answer = whole(json.dumps(body).encode())
        try:
            answer = client.complete("a")
        except ForeignAnswerError as error:
            assert "no answer of a Forklift server" in str(error)
            continue
        is_same_kind = isinstance(new, type(old)) or (isinstance(old, float) and isinstance(new, int))
        # `history` and the text of a chat are no part of a completion.
        assert is_same_kind or new is None or path[0] in ("response", "bytes"), (path, new)
        repr(answer)


@pytest.mark.parametrize(
    "body",
    [
        [{"score": "high", "token": 1, "token_str": "a", "sequence": "b"}],
        [[{"score": 0.5}]],
        [5],
        {"a": 1},
        [[{"score": 0.5, "token": 1, "token_str": None, "sequence": "b"}]],
    ],
)
def test_proposals_of_another_kind_are_told(server, body):
    server.answer = whole(json.dumps(body).encode())
    with pytest.raises(ForeignAnswerError):
        Client(server.url, max_retries=0).fill_mask("a")


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
@pytest.mark.parametrize("field", ["data: ", "data:"])
@pytest.mark.parametrize("size", [1, 3, 4096])
def test_events_are_read_as_the_format_allows(server, end, field, size):
    last = {**DETAILS, "completion": ""}
    stream = events_of({"completion": "a\u2028"}, {"completion": "b"}, last, end=end, field=field)
    stream = f": a comment{end}event: message{end[0]}".encode() + stream
    server.answer = chunked(*(stream[i : i + size] for i in range(0, len(stream), size)))
    *_, answer = Client(server.url).complete("a", stream=True)
    assert answer.answer.text == "a\u2028b"


def test_a_stream_of_one_length_is_read_too(server):
    stream = events_of({"completion": "a"}, {**DETAILS, "completion": ""})
    server.answer = whole(stream, OK + EVENTS)
    assert [piece.text for piece in Client(server.url).complete("a", stream=True)] == ["a", ""]


def test_a_page_in_place_of_a_stream_is_foreign_and_a_stream_that_breaks_off_is_ended(server):
    server.answer = whole(b"<html>", OK + b"Content-Type: text/html\r\n")
    with pytest.raises(ForeignAnswerError, match="text/html"):
        list(Client(server.url).complete("a", stream=True))
    server.answer = (
        OK + EVENTS + b"Transfer-Encoding: chunked\r\n\r\n1b\r\n" + b'data: {"completion": "x"}\n\n' + b"\r\nff\r\nda"
    )
    stream = Client(server.url).complete("a", stream=True)
    assert next(stream).text == "x"
    with pytest.raises(StreamEndedError):
        next(stream)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["head", "body", "events"])
def test_a_server_that_drips_is_left_when_the_time_is_over(part):
    parts = {
        "head": OK + b"X-Long: " + b"a" * 10_000,
        "body": OK + JSON + b"Content-Length: 10000\r\n\r\n" + b" " * 10_000,
        "events": OK + EVENTS + CLOSE + b"\r\n" + b": ping\n" * 10_000,
    }
    with odd_server(parts[part], drip_s=0.02) as server:
        begun_s = time.monotonic()
        with pytest.raises(NoAnswerError, match="no whole answer within"):
            call = calls(Client(server.url, timeout_s=0.6))["stream" if part == "events" else "complete"]
            call()
        assert time.monotonic() - begun_s < 30, "each read had its byte in time"
        assert len(server.requests) == 1, "its time is over: it is not asked again"


def test_pauses_and_attempts_together_stay_within_the_time(server, no_pauses):
    body = {"error": errors.OverloadedError("full").body()}
    server.answer = status("503 Unavailable", json.dumps(body).encode(), b"Retry-After: 40\r\n")
    server.requests.clear()
    with pytest.raises(OverloadedError):
        Client(server.url, timeout_s=60).complete("a")
    assert (no_pauses, len(server.requests)) == ([40.0], 2), "a second pause would end after the time"
    with pytest.raises(OverloadedError):
        Client(server.url, timeout_s=30).complete("a")
    assert len(server.requests) == 3
    assert b"X-Request-Timeout-S: 30.000" in server.requests[-1]


def test_the_server_is_told_what_is_left_of_the_time(server, no_pauses):
    server.requests.clear()
    server.answer = status("503 Unavailable", b"{}", b"Retry-After: 10\r\n")
    with pytest.raises(ClientError):
        Client(server.url, timeout_s=60, max_retries=1).complete("a")
    told = [float(one.partition(b"X-Request-Timeout-S: ")[2].split(b"\r\n")[0]) for one in server.requests]
    assert told[0] == 60.0 and 40.0 < told[1] <= 50.0


@pytest.mark.parametrize("more", [b"Retry-After: 1\r\n", b"X-Should-Retry: true\r\n", b"X-Should-Retry: false\r\n"])
def test_a_model_that_does_not_fit_is_not_asked_for_again(server, no_pauses, more):
    error = errors.InsufficientMemoryError("too large")
    assert error.headers()["X-Should-Retry"] == "false"
    server.answer = status("503 Unavailable", json.dumps({"error": error.body()}).encode(), more)
    server.requests.clear()
    with pytest.raises(InsufficientMemoryError):
        Client(server.url).complete("a")
    assert (len(server.requests), no_pauses) == (1, [])


@pytest.mark.slow
def test_what_swells_when_unpacked_is_bounded(server, monkeypatch):
    monkeypatch.setattr("app.client.connection.exchange.MOST_BYTES", 2**20)
    bomb = gzip.compress(b'{"a": "' + b" " * 50 * 2**20 + b'"}')
    server.answer = whole(bomb, OK + JSON + b"Content-Encoding: gzip\r\n")
    with pytest.raises(ForeignAnswerError, match="longer than 1048576 bytes"):
        Client(server.url).complete("a")
    server.answer = whole(b'{"completion": "' + b"x" * 2 * 2**20 + b'"}')
    with pytest.raises(ForeignAnswerError, match="longer"):
        Client(server.url).complete("a")
    server.answer = whole(b"data: " + b"x" * 2 * 2**20, OK + EVENTS)
    with pytest.raises(ForeignAnswerError, match="longer"):
        list(Client(server.url).complete("a", stream=True))


def test_a_redirect_is_told_and_the_key_does_not_follow_it(server):
    with odd_server() as other:
        server.answer = status("307 Temporary Redirect", more=f"Location: {other.url}/complete\r\n".encode())
        with pytest.raises(ForeignAnswerError, match=f"redirects to {other.url}/complete"):
            Client(server.url, KEY).complete("a")
        assert other.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:5000",
        "ftp://127.0.0.1",
        "http://",
        "http://:5000",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:port",
        "http://[::1",
        "http://127.0.0.1:0",
        "http://127.0.0.1 :5000",
        "http://127.0.0.1\r\nX: y:5000",
        "http://127.0.0.1:5000/?a=b",
        "http://127.0.0.1:5000/#a",
    ],
)
def test_what_is_no_url_is_told_before_anything_is_sent(url):
    with pytest.raises(SetupError, match="URL"):
        Client(url)


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "\u2028", "-", "%00"])
def test_a_host_that_cannot_be_one_is_a_client_error(host):
    with pytest.raises(ClientError):
        Client(f"http://{host}:5000", max_retries=0, timeout_s=20).complete("a")


def test_blanks_around_a_url_are_no_part_of_it(server):
    server.answer = whole(json.dumps(DETAILS).encode())
    assert Client(f" {server.url}/ \n").complete("a").text == "x"


@pytest.mark.parametrize("options", [{"temperature": float("nan")}, {"stop": {"a"}}, {"stop": object()}])
def test_options_that_are_no_json_are_a_client_error(server, options):
    with pytest.raises(SetupError, match="JSON"):
        Client(server.url).complete("a", **options)


@pytest.mark.parametrize("given", [KEY, f" {KEY}\n", f"{KEY}\r\n"])
def test_a_key_goes_out_in_utf_8_without_what_stands_around_it(server, given):
    server.answer = whole(json.dumps(DETAILS).encode())
    server.requests.clear()
    Client(server.url, given).complete("a")
    [line] = [one for one in server.requests[0].split(b"\r\n") if one.startswith(b"Authorization")]
    assert line == b"Authorization: Bearer " + KEY.encode()


@pytest.mark.parametrize("given", ["", " ", "\n"])
def test_an_empty_key_is_none(server, given):
    server.answer = whole(json.dumps(DETAILS).encode())
    server.requests.clear()
    Client(server.url, given).complete("a")
    assert b"Authorization" not in server.requests[0]


@pytest.mark.parametrize("given", [f"{KEY}\nX-Other: 1", f"{KEY}\x00", f"{KEY}\x7fa", f"{KEY}\ud83d"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(given):
    with pytest.raises(SetupError) as caught:
        Client("http://127.0.0.1:1", given)
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


def test_nothing_that_can_be_printed_holds_the_key(server):
    client = Client(server.url, KEY)
    shown = [
        repr(client),
        str(client),
        repr(vars(client)),
        repr(Endpoint(server.url, KEY)),
        repr(vars(client._transport._endpoint)),
    ]
    server.answer = status("401 Unauthorized", json.dumps({"error": {"message": f"no such key: {KEY}"}}).encode())
    with pytest.raises(UnauthorizedError) as caught:
        client.complete("a")
    shown += [str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))]
    assert not any("sesame" in one for one in shown), shown


def test_a_password_in_a_url_is_not_shown():
    with pytest.raises(NoAnswerError) as caught:
        Client("http://me:sesame@127.0.0.1:1", max_retries=0).complete("a")
    assert "sesame" not in str(caught.value) and "127.0.0.1:1" in str(caught.value)
    with pytest.raises(SetupError) as setup:
        Client("http://me:sesame@127.0.0.1:99999")
    assert "sesame" not in str(setup.value)


def test_a_given_key_wins_over_netrc(server, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\ndefault login you password another\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.answer = whole(json.dumps(DETAILS).encode())
    server.requests.clear()
    Client(server.url, KEY).complete("a")
    assert b"Bearer " + KEY.encode() in server.requests[0] and b"Basic" not in server.requests[0]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_this_machine_is_asked_past_a_proxy(server, monkeypatch, name):
    with odd_server(whole(b"{}")) as proxy:
        monkeypatch.setenv(name, proxy.url)
        server.answer = whole(json.dumps(DETAILS).encode())
        for host in ("127.0.0.1", "localhost"):
            assert Client(f"http://{host}:{server.port}", KEY).complete("a").text == "x"
        assert proxy.requests == []


def test_a_proxy_that_fails_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:sesame@127.0.0.1:1")
    with pytest.raises(
        NoAnswerError, match=r"http://forklift\.example through the proxy http://127\.0\.0\.1:1 "
    ) as caught:
        Client("http://forklift.example", max_retries=0).complete("a")
    assert "sesame" not in str(caught.value)


def test_a_kind_of_proxy_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1")
    with pytest.raises(ClientError, match=r"socks5h://127\.0\.0\.1:1"):
        Client("http://forklift.example", max_retries=0).complete("a")


def test_a_bundle_of_certificates_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(SetupError, match=r"none\.pem"):
        Client("https://127.0.0.1:1", max_retries=0).complete("a")


def test_a_stream_that_nobody_reads_is_closed_when_it_is_forgotten(server):
    with odd_server(OK + EVENTS + CLOSE + b"\r\n" + b": ping\n" * 10_000, drip_s=0.01) as dripping:
        stream = Client(dripping.url).complete("a", stream=True)
        del stream
        gc.collect()
        wait_until(lambda: not dripping._threads[0].is_alive())
