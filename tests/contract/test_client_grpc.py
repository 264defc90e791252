"""What of the Python client is gRPC's own: addresses, keys, errors, when it asks again. Its calls: ``test_client``."""

from __future__ import annotations

import threading

import pytest

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")

from app.client import (
    Client,
    NoAnswerError,
    OverloadedError,
    QueueTimeoutError,
    RequestTimeoutError,
    SetupError,
    StreamEndedError,
    UnauthorizedError,
)
from app.client.connection.grpc_address import GrpcAddress
from app.core import errors
from tests.contract.describing import RoomyModel
from tests.contract.doubles import Gate
from tests.contract.rpc_bind import unused_address
from tests.contract.rpc_door import open_door
from tests.tls import make_pair
from tests.waiting import wait_until

TEXT = "Hello,\nworld"


@pytest.fixture
def serve(make_world):
    """Opens doors with these settings; gives the world and the door's URL."""
    doors = []

    def open_one(scheme="grpc", **settings):
        world = make_world(model=RoomyModel(), grpc_bind=unused_address(), **settings)
        doors.append(open_door(world.context))
        doors[-1].__enter__()
        return world, f"{scheme}://{world.settings.grpc_bind}"

    yield open_one
    for door in doors:
        door.__exit__(None, None, None)


@pytest.fixture
def pauses(monkeypatch):
    found = []
    monkeypatch.setattr("app.client.connection.grpc_server.time.sleep", found.append)
    return found


@pytest.mark.parametrize(
    ("url", "target", "is_secure"),
    [
        ("grpc://127.0.0.1:1", "127.0.0.1:1", False),
        (" GRPC://host ", "host:50051", False),
        ("grpcs://[::1]:443", "[::1]:443", True),
        ("grpcs://[::1]", "[::1]:50051", True),
    ],
)
def test_an_address_is_a_host_and_a_port(url, target, is_secure):
    found = GrpcAddress(url, None)
    assert (found.target, found.is_secure) == (target, is_secure)


@pytest.mark.parametrize("url", ["grpc://", "grpc://a:0", "grpc://a/b", "grpc://a b", "grpc://u:p@a:1"])
def test_what_is_no_address_is_refused_before_anything_is_sent(url):
    with pytest.raises(SetupError) as caught:
        Client(url)
    assert "u:p" not in str(caught.value)


def test_the_key_is_sent_and_never_shown(serve):
    _, url = serve(api_keys="sesame-key")
    with Client(url, "sesame-key") as client:
        assert client.complete("a").text == TEXT and "sesame" not in repr(client)
    with Client(url, "wrong-key") as client, pytest.raises(UnauthorizedError) as caught:
        client.complete("a")
    assert caught.value.status == 401 and "wrong-key" not in str(caught.value)


def test_it_speaks_tls_with_whom_https_would_trust(serve, tmp_path, monkeypatch):
    pair = make_pair(tmp_path / "tls")
    _, url = serve("grpcs", **pair.settings)
    with Client(url, max_retries=0) as client, pytest.raises(NoAnswerError):
        client.complete("a")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pair.authority))
    with Client(url, max_retries=0) as client:
        assert client.complete("a").text == TEXT
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none"))
    with Client(url) as client, pytest.raises(SetupError, match="cannot be read"):
        client.complete("a")


def test_a_certificate_is_renewed_without_a_restart(serve, tmp_path, monkeypatch):
    old, new = make_pair(tmp_path / "tls"), make_pair(tmp_path / "new")
    _, url = serve("grpcs", **old.settings)
    for file in ("cert", "key"):
        getattr(old, file).write_bytes(getattr(new, file).read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(new.authority))
    with Client(url, max_retries=0) as client:
        assert client.complete("a").text == TEXT


def test_an_overloaded_server_is_asked_again_when_it_says(serve, pauses):
    world, url = serve()
    world.inference.refuse_with = errors.OverloadedError("full", retry_after_s=7)
    with Client(url) as client, pytest.raises(OverloadedError, match="full") as caught:
        client.complete("a")
    assert pauses == [7.0, 7.0] and (caught.value.status, caught.value.code) == (503, "overloaded")
    assert caught.value.request_id


@pytest.mark.parametrize("error", [errors.InsufficientMemoryError("no room"), errors.InternalError()])
def test_what_asking_again_does_not_mend_is_not_asked_again(serve, pauses, error):
    world, url = serve()
    world.inference.refuse_with = error
    with Client(url) as client, pytest.raises(Exception, match=error.message) as caught:
        client.complete("a")
    assert pauses == [] and caught.value.code == error.code


def test_a_server_that_is_not_there_is_tried_again_then_told(pauses):
    with Client(f"grpc://{unused_address()}") as client, pytest.raises(NoAnswerError, match="cannot reach grpc://"):
        client.complete("a")
    assert len(pauses) == 2


def test_the_time_of_a_call_is_told_to_the_server(serve, pauses):
    world, url = serve()
    world.inference.script = ["a", Gate()]
    with Client(url, timeout_s=0.4) as client, pytest.raises((RequestTimeoutError, QueueTimeoutError)) as caught:
        client.complete("a")
    assert caught.value.status == 504 and pauses == []
    wait_until(lambda: world.num_places() == 0)


def test_a_stream_that_breaks_off_is_not_taken_for_whole(make_world):
    world = make_world(grpc_bind=unused_address())
    world.inference.script = ["Hel", Gate()]
    with open_door(world.context) as door, Client(f"grpc://{world.settings.grpc_bind}") as client:
        stream = client.complete("a", stream=True)
        assert next(stream).text == "Hel"
        threading.Thread(target=door.close, daemon=True).start()
        with pytest.raises(StreamEndedError):
            list(stream)


@pytest.mark.parametrize(
    "call", [lambda c: c.classify("a"), lambda c: c.converse([]), lambda c: c.translate("a", "de")]
)
def test_what_has_no_method_is_told_before_anything_is_sent(call):
    with Client("grpc://127.0.0.1:1") as client, pytest.raises(SetupError, match="over HTTP"):
        call(client)


@pytest.mark.parametrize(
    "options",
    [
        {"stop": "x", "logit_bias": {"5": 1}, "seed": 2**63 - 1, "bad_words": ["a"]},
        {"response_format": {"type": "json_object"}},
        {"logprobs": False, "temperature": 1, "top_k": -1},
    ],
)
def test_options_go_as_they_are_whether_they_have_a_field_or_not(serve, options):
    _, url = serve()
    with Client(url) as client:
        assert client.complete("a", **options).text == TEXT


@pytest.mark.parametrize(("name", "value"), [("temperature", "hot"), ("n", 2.5), ("nonsense", 1), ("stop", [1])])
def test_what_the_server_refuses_it_refuses_by_name(serve, name, value):
    _, url = serve()
    with Client(url) as client, pytest.raises(Exception, match=name) as caught:
        client.complete("a", **{name: value})
    assert (caught.value.status, caught.value.param) == (400, name)


def test_many_servers_are_asked_over_their_grpc_ports_and_tell_their_load(serve):
    urls = [serve()[1] for _ in range(2)]
    with Client.discover(",".join([urls[0], urls[1].removeprefix("grpc://")])) as client:
        assert {client.complete("a").text for _ in range(8)} == {TEXT}
        assert "".join(piece.text for piece in client.complete("a", stream=True)) == TEXT
        told = [one.told for one in client._transport._choice._standings.values()]
    assert told == [(0, 11)] * 2 or [one[1] for one in told] == [11, 11]
