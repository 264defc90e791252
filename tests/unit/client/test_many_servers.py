"""A client of many servers: which one is asked, and what is asked again elsewhere."""

from __future__ import annotations

import json
import random
import threading
from itertools import pairwise

import pytest

from app.client import (
    BadRequestError,
    Client,
    InternalError,
    ModelNotFoundError,
    NoAnswerError,
    NoServerError,
    OverloadedError,
    StreamEndedError,
    UnauthorizedError,
)
from app.client.connection.one_server import CallLimits
from app.client.discovery import server_choice, server_probes
from app.client.discovery.attempts import http_attempt
from app.client.discovery.attempts.http_attempt import HttpWay
from app.client.discovery.many_servers import ManyServers, affinity_of
from app.client.discovery.server_choice import ServerChoice
from app.client.discovery.server_entry import ServerEntry
from tests.memory_registry import MemoryList
from tests.scripted_server import COMPLETION, HANGS, HANGS_UP, STALLS, ScriptedServer, refuses, streams

LIMITS = CallLimits(20.0, 0, 1.0)


@pytest.fixture
def make_server():
    servers = []

    def make(name, **fields):
        servers.append(ScriptedServer(name, **fields))
        return servers[-1]

    yield make
    for one in servers:
        one.stop()


@pytest.fixture
def servers(make_server):
    """Three; the first two fail as a test says, the third one serves."""
    return [make_server(name) for name in "abc"]


def client_of(*servers, limits=LIMITS, **options):
    listed = MemoryList(*(one.entry for one in servers))
    client = Client("http://127.0.0.1:1")
    client._transport = ManyServers("memory://", listed, HttpWay(None), limits, **options)
    return client


def asked(servers):
    return [one.num_asked for one in servers]


@pytest.mark.parametrize(
    "answer",
    [
        refuses(503, "overloaded", Retry_After="7"),
        refuses(503, "loading"),
        refuses(503, "shutting_down"),
        refuses(503, "insufficient_memory", X_Should_Retry="false"),
        lambda *_: HANGS_UP,
        lambda *_: (404, {}, b"<html>another server</html>"),
        lambda *_: (302, {"Location": "http://elsewhere"}, b""),
    ],
    ids=["overloaded", "loading", "shutting_down", "insufficient_memory", "hangs_up", "foreign", "redirect"],
)
def test_what_one_server_does_not_answer_another_does(servers, answer):
    for bad in servers[:2]:
        bad.answer = answer
    client = client_of(*servers)
    assert [client.complete("a").model for _ in range(3)] == ["c"] * 3


def test_servers_where_nobody_listens_cost_no_attempt(servers):
    for gone in servers[:2]:
        gone.stop()
    client = client_of(*servers)
    assert {client.complete("a").model for _ in range(5)} == {"c"}


def test_a_server_that_failed_rests_while_another_is_there(servers):
    servers[0].answer = lambda *_: HANGS_UP
    client = client_of(*servers)
    for _ in range(20):
        client.complete("a")
    assert servers[0].num_asked <= 2


def test_a_request_that_breaks_servers_does_not_go_round(servers):
    for bad in servers:
        bad.answer = refuses(500, "internal_error")
    with pytest.raises(InternalError):
        client_of(*servers).complete("a")
    assert sum(asked(servers)) == 2


def test_a_connection_lost_over_a_request_is_made_again_a_few_times(make_server):
    servers = [make_server(name) for name in "abcdef"]
    for bad in servers:
        bad.answer = lambda *_: HANGS_UP
    with pytest.raises(NoAnswerError):
        client_of(*servers).complete("a")
    assert sum(asked(servers)) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuses(400, "invalid_parameter"), BadRequestError),
        (refuses(401, "invalid_api_key"), UnauthorizedError),
        (refuses(504, "request_timeout", X_Should_Retry="false"), NoAnswerError.__mro__[1]),
    ],
)
def test_what_another_server_would_say_as_well_is_raised_at_once(servers, answer, error):
    for one in servers:
        one.answer = answer
    with pytest.raises(error):
        client_of(*servers).complete("a")
    assert sum(asked(servers)) == 1


def test_when_all_are_full_the_call_waits_as_told_and_asks_again(servers, monkeypatch):
    pauses = []
    monkeypatch.setattr("time.sleep", pauses.append)
    for one in servers:
        one.answer = refuses(503, "overloaded", Retry_After="1")
    with pytest.raises(OverloadedError):
        client_of(*servers, limits=CallLimits(20.0, 2, 5.0)).complete("a")
    assert [one for one in pauses if one >= 1.0] == [1.0, 1.0]
    assert asked(servers) == [3, 3, 3]


def test_a_crowd_of_full_servers_is_not_asked_one_by_one(make_server):
    servers = [make_server(str(number)) for number in range(8)]
    for one in servers:
        one.answer = refuses(503, "overloaded")
    with pytest.raises(OverloadedError):
        client_of(*servers).complete("a")
    assert sum(asked(servers)) == 5


def test_the_model_decides_and_a_server_that_lacks_it_is_not_asked_again(make_server):
    mine, other, unknown = (
        make_server("mine", models=("m",)),
        make_server("other", models=("x",)),
        make_server("unknown"),
    )
    unknown.answer = refuses(404, "model_not_found")
    client = client_of(mine, other, unknown)
    assert {client.complete("a", model="m").model for _ in range(8)} == {"mine"}
    assert other.num_asked == 0
    assert unknown.num_asked <= 1
    with pytest.raises(ModelNotFoundError):
        client.complete("a", model="nowhere")
    with pytest.raises(NoServerError, match="none of the 3 servers in memory:// has the model 'nowhere'"):
        client.complete("a", model="nowhere")


def test_without_a_name_the_task_decides(make_server):
    encoder, generator = make_server("e", tasks=("embeddings",)), make_server("g", tasks=("generate",))
    client = client_of(encoder, generator)
    assert {client.complete("a").model for _ in range(6)} == {"g"}


def test_no_server_at_all_is_told_with_the_registry(monkeypatch):
    monkeypatch.setattr("app.client.discovery.many_servers.FIRST_LIST_LIMIT_S", 0.01)
    with pytest.raises(NoServerError, match="no server is known: memory:// holds no server"):
        client_of().complete("a")


def test_an_empty_list_changes_nothing(servers):
    client = client_of(*servers)
    client._transport._servers.tell()
    assert client.complete("a").text == "x"
    assert len(client.servers()) == 3


def test_servers_that_are_not_ready_are_asked_only_where_no_other_is(make_server):
    loading, ready = make_server("l", state="loading"), make_server("r")
    client = client_of(loading, ready)
    assert {client.complete("a").model for _ in range(6)} == {"r"}
    client._transport._servers.tell(loading.entry)
    assert client.complete("a").model == "l"


# streams


def event(**fields):
    return f"data: {json.dumps(fields)}\n\n"


LAST = event(**COMPLETION, model="m")


def test_a_stream_that_broke_before_its_first_event_is_made_again(servers):
    servers[0].answer = streams(": comment\n\n")
    servers[1].answer = streams(event(error={"code": "shutting_down", "message": "m"}))
    servers[2].answer = streams(": comment\n\n", event(completion="y"), LAST, "data: [DONE]\n\n")
    client = client_of(*servers)
    for _ in range(3):
        assert [piece.text for piece in client.complete("a", stream=True)] == ["y", "x"]


def test_a_stream_that_broke_later_is_the_callers(servers):
    for one in servers:
        one.answer = streams(event(completion="y"))
    pieces = client_of(*servers).complete("a", stream=True)
    assert next(pieces).text == "y"
    with pytest.raises(StreamEndedError):
        next(pieces)
    assert sum(asked(servers)) == 1


def test_a_stream_counts_as_load_until_it_ends(servers):
    for one in servers:
        one.answer = streams(event(completion="y"), LAST, "data: [DONE]\n\n")
    client = client_of(*servers)
    pieces = [client.complete("a", stream=True) for _ in range(5)]
    standings = client._transport._choice._standings
    assert sum(one.num_own for one in standings.values()) == 5
    for stream in pieces:
        list(stream)
    assert sum(one.num_own for one in standings.values()) == 0


# servers that say nothing


@pytest.fixture
def hasty(monkeypatch):
    for name, value in {"PATIENCE_S": 0.05, "PERIOD_S": 0.02}.items():
        monkeypatch.setattr(server_probes, name, value)
    monkeypatch.setattr(http_attempt.is_alive, "__defaults__", (0.1,))


def test_a_call_to_a_server_that_stopped_goes_elsewhere(servers, hasty):
    for stopped in servers[:2]:
        stopped.answer, stopped.is_alive = lambda *_: HANGS, False
    client = client_of(*servers)
    assert client.complete("a").model == "c"


def test_a_stream_of_a_server_that_stopped_ends_long_before_its_limit(make_server, hasty):
    stopped = make_server("s")
    stopped.answer = lambda *_: STALLS
    pieces = client_of(stopped).complete("a", stream=True)
    assert next(pieces).text == "y"
    stopped.is_alive = False
    with pytest.raises(StreamEndedError):
        next(pieces)


def test_a_server_that_only_takes_its_time_is_waited_for(make_server, hasty):
    slow = make_server("slow")
    served = slow.answer

    def answer(path, body):
        slow.freed.wait(0.5)
        return served(path, body)

    slow.answer = answer
    assert client_of(slow).complete("a").model == "slow"
    assert slow.num_asked == 1


# who is chosen


def entry(name, **fields):
    return ServerEntry(name, f"http://{name}", **{"places": 10, **fields})


def choice_of(*entries, zone=None):
    choice = ServerChoice(zone, random.Random(0))
    choice.take(entries)
    return choice


def test_of_two_servers_the_less_loaded_is_chosen():
    choice = choice_of(entry("a"), entry("b"))
    for _ in range(10):
        choice.pick(None, None)
    assert {name: one.num_own for name, one in choice._standings.items()} == {"a": 5, "b": 5}


def test_what_a_server_says_of_its_load_counts():
    choice = choice_of(entry("a"), entry("b"))
    first = choice.pick(None, None)
    choice.done(first, "9/10", False)
    assert {choice.pick(None, None).id for _ in range(8)} == {"b" if first.id == "a" else "a"}


@pytest.mark.parametrize("header", [None, "", "x", "9", "-1/10", "1/10/2", "9" * 400 + "/1"])
def test_a_load_that_is_none_is_passed_over(header):
    choice = choice_of(entry("a"))
    choice.done(choice.pick(None, None), header, False)
    assert choice.load(entry("a"), 0.0) == 0.0


def test_larger_servers_get_more():
    choice = choice_of(entry("small", places=10), entry("large", places=30))
    for _ in range(40):
        choice.pick(None, None)
    assert choice._standings["large"].num_own == pytest.approx(30, abs=1)


def test_of_many_servers_a_few_are_looked_at_and_those_that_rest_are_passed_over():
    entries = [entry(str(number), models=("m",)) for number in range(100)]
    choice = choice_of(*entries, entry("other", models=("x",)), entry("asleep", models=("m",), state="loading"))
    for one in entries[:90]:
        choice._standing(one).rest_until_s = float("inf")
    names = {choice.pick("m", None).id for _ in range(400)}
    assert names <= {str(number) for number in range(90, 100)}
    assert len(names) == 10
    loads = [choice._standings[name].num_own for name in names]
    assert max(loads) < 2 * min(loads)
    assert choice.pick("m", None, [str(number) for number in range(100)]).id == "asleep"
    assert {choice.pick(str(name), None) for name in range(600)} == {None}
    assert len(choice._pools) <= server_choice.MOST_POOLS


def test_weights_are_shares():
    names = []
    choice = choice_of(*(entry(name, weight=weight) for name, weight in {"a": 10, "b": 10, "c": 1000}.items()))
    for _ in range(300):
        found = choice.pick(None, None)
        names.append(found.id)
        choice.done(found)
    assert names.count("c") > 150


def test_servers_of_the_own_zone_come_first_while_they_have_room():
    choice = choice_of(entry("near", zone="z", places=2), entry("far", zone="y"), zone="z")
    assert [choice.pick(None, None).id for _ in range(4)] == ["near", "near", "far", "far"]


def test_prompts_that_begin_alike_go_to_one_server_and_few_move_when_one_comes():
    entries = [entry(str(number)) for number in range(20)]
    keys = [affinity_of({"prompt": f"file {number} " + "x" * 500}) for number in range(200)]

    def homes(choice):
        found = {}
        for key in keys:
            chosen = choice.pick(None, None, affinity=key)
            choice.done(chosen)
            found[key] = chosen.id
        return found

    before, again = homes(choice_of(*entries)), homes(choice_of(*entries))
    after = homes(choice_of(*entries, entry("new")))
    assert before == again
    assert len(set(before.values())) > 15
    moved = [key for key in keys if before[key] != after[key]]
    assert 0 < len(moved) < 30
    assert {after[key] for key in moved} == {"new"}


def test_a_full_server_loses_what_would_belong_to_it():
    choice = choice_of(entry("a", places=2), entry("b", places=2))
    assert [choice.pick(None, None, affinity="k").id for _ in range(3)].count("a") in (1, 2)


def test_pauses_after_failures_grow_and_end_with_an_answer(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(server_choice.time, "monotonic", lambda: now[0])
    choice = choice_of(entry("a"))
    rests = []
    for _ in range(12):
        choice.done(choice.pick(None, None), None, True)
        rests.append(choice._standings["a"].rest_until_s - now[0])
    assert rests[0] <= 0.5
    assert all(later > sooner * 0.9 for sooner, later in pairwise(rests[:6]))
    assert max(rests) <= 30.0
    choice.done(choice.pick(None, None), None, False)
    assert choice._standings["a"].rest_until_s == 0.0


def test_many_threads_share_a_choice():
    choice = choice_of(*(entry(str(number)) for number in range(5)))

    def work():
        for number in range(200):
            found = choice.pick(None, None)
            choice.done(found, "1/10", number % 7 == 0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(one.num_own == 0 for one in choice._standings.values())
