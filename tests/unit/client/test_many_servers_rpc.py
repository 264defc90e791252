"""A client of many servers over gRPC: what is the same as over HTTP, and what of it is gRPC's own."""

from __future__ import annotations

import pytest

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")

from app.client import Client, NoAnswerError, NoServerError, OverloadedError, SetupError, StreamEndedError
from app.client.connection.one_server import CallLimits
from app.client.discovery import server_probes
from app.client.discovery.attempts import grpc_attempt
from app.client.discovery.attempts.grpc_attempt import GrpcWay
from app.client.discovery.many_servers import ManyServers
from app.client.discovery.server_entry import ServerEntry
from tests.memory_registry import MemoryList
from tests.scripted_rpc_server import ScriptedRpcServer, breaks, hangs, refuses

LIMITS = CallLimits(20.0, 0, 1.0)
UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
def make_server():
    servers = []

    def make(name, **fields):
        servers.append(ScriptedRpcServer(name, **fields))
        return servers[-1]

    yield make
    for one in servers:
        one.stop()


@pytest.fixture
def servers(make_server):
    """Three; the first two fail as a test says, the third one serves."""
    return [make_server(name) for name in "abc"]


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(server_probes, "PATIENCE_S", 0.05)
    monkeypatch.setattr(server_probes, "PERIOD_S", 0.02)
    monkeypatch.setattr(grpc_attempt, "PROBE_LIMIT_S", 0.1)


def client_of(*servers, limits=LIMITS):
    client = Client("http://127.0.0.1:1")
    listed = MemoryList(*(one.entry for one in servers))
    client._transport = ManyServers("memory://", listed, GrpcWay(None), limits)
    return client


def asked(servers):
    return [one.num_asked for one in servers]


def test_calls_reach_every_server_of_a_list(servers):
    hosts = ",".join(one.entry.grpc for one in servers)
    with Client.discover(f"grpc://{hosts}") as client:
        names = {client.complete("a").model for _ in range(60)}
        pieces = [piece.text for piece in client.complete("a", stream=True)]
    assert names == {"a", "b", "c"}
    assert pieces == ["x", ""]


@pytest.mark.parametrize(
    "answer",
    [
        refuses(EXHAUSTED, "overloaded", retry_after="7"),
        refuses(UNAVAILABLE, "loading"),
        refuses(UNAVAILABLE, "shutting_down"),
        breaks(),
        breaks(is_taken=False),
    ],
    ids=["overloaded", "loading", "shutting_down", "lost", "lost before it was taken"],
)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_one_server_does_not_answer_another_does(servers, answer, is_streamed):
    for bad in servers[:2]:
        bad.answer = answer
    client = client_of(*servers)
    if is_streamed:
        assert [piece.text for piece in client.complete("a", stream=True)] == ["x", ""]
    else:
        assert [client.complete("a").model for _ in range(3)] == ["c"] * 3
    assert servers[2].num_asked > 0


def test_servers_where_nobody_listens_cost_no_attempt(make_server):
    *gone, there = [make_server(name) for name in "abcdef"]
    for one in gone:
        one.stop()
    client = client_of(*gone, there)
    assert {client.complete("a").model for _ in range(5)} == {"f"}


def test_a_call_lost_once_it_was_taken_is_made_again_a_few_times(make_server):
    servers = [make_server(name) for name in "abcdef"]
    for one in servers:
        one.answer = breaks()
    with pytest.raises(NoAnswerError):
        client_of(*servers).complete("a")
    assert sum(asked(servers)) == 3


def test_when_all_are_full_the_call_waits_as_told_and_asks_again(servers, monkeypatch):
    pauses = []
    monkeypatch.setattr("app.client.discovery.many_servers.time.sleep", pauses.append)
    for one in servers:
        one.answer = refuses(EXHAUSTED, "overloaded", retry_after="1")
    with pytest.raises(OverloadedError):
        client_of(*servers, limits=CallLimits(20.0, 2, 5.0)).complete("a")
    assert pauses == [1.0, 1.0]
    assert asked(servers) == [3, 3, 3]


def test_a_stream_that_broke_after_its_first_piece_is_the_callers(servers):
    for one in servers:
        one.answer = breaks("y")
    pieces = client_of(*servers).complete("a", stream=True)
    assert next(pieces).text == "y"
    with pytest.raises(StreamEndedError):
        next(pieces)
    assert sum(asked(servers)) == 1


def test_a_stream_counts_as_load_until_it_ends(servers):
    client = client_of(*servers)
    streams = [client.complete("a", stream=True) for _ in range(5)]
    standings = client._transport._choice._standings
    assert sum(one.num_own for one in standings.values()) == 5
    for one in streams:
        list(one)
    assert sum(one.num_own for one in standings.values()) == 0


def test_what_a_server_says_of_its_load_counts(servers):
    full = servers[0]
    full.load = "4/4"
    client = client_of(*servers)
    while not full.num_asked:
        client.complete("a")
    for _ in range(6):
        client.complete("a")
    assert full.num_asked == 1
    assert client._transport._choice._standings[full.name].told == (4, 4)


def test_a_call_to_a_server_that_stopped_goes_elsewhere(servers, hasty):
    for stopped in servers[:2]:
        stopped.answer, stopped.is_alive = hangs(stopped), False
    assert client_of(*servers).complete("a").model == "c"


def test_a_server_that_only_takes_its_time_is_waited_for(make_server, hasty):
    slow = make_server("slow")

    def answer(context, kind):
        slow.freed.wait(0.5)
        yield from slow.completes(context, kind)

    slow.answer = answer
    assert client_of(slow).complete("a").model == "slow"
    assert slow.num_asked == 1


@pytest.mark.slow
def test_servers_without_a_grpc_port_are_not_asked_and_named(servers):
    only_http = ServerEntry("h", "http://127.0.0.1:1")
    client = client_of(*servers)
    client._transport._servers.tell(only_http, servers[0].entry)
    assert {client.complete("a").model for _ in range(4)} == {"a"}
    with (
        Client.discover("forklift://127.0.0.1:1,127.0.0.1:2", over="grpc") as other,
        pytest.raises(NoServerError, match=r"none of the 2 servers in forklift://.* has a gRPC port"),
    ):
        other.complete("a")


def test_what_has_no_method_is_refused_before_any_server_is_asked(servers):
    client = client_of(*servers)
    with pytest.raises(SetupError, match="no method"):
        client.rerank("a", ["b"])
    assert asked(servers) == [0, 0, 0]
    assert all(one.num_failures == 0 for one in client._transport._choice._standings.values())


def test_a_connection_is_kept_for_all_calls_and_dropped_with_its_server(servers):
    client = client_of(*servers)
    way = client._transport._way
    for _ in range(30):
        client.complete("a")
    assert len(way._lines) == 3
    client._transport._servers.tell(servers[0].entry)
    assert list(way._lines) == [f"grpc://{servers[0].entry.grpc}"]
    client.close()
    assert not way._lines


@pytest.mark.parametrize(("http", "url"), [("http://a:1", "grpc://a:2"), ("https://a:1", "grpcs://a:2")])
def test_a_server_with_https_has_tls_on_its_grpc_port(http, url):
    assert grpc_attempt.url_of(ServerEntry("a", http, grpc="a:2")) == url


def test_over_what_cannot_be_is_refused():
    with pytest.raises(SetupError, match="over http or grpc"):
        Client.discover("forklift://127.0.0.1:1", over="smoke")
    with pytest.raises(SetupError, match="no path"):
        Client.discover("grpc://127.0.0.1:1/path")
