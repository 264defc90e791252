"""What stands around Serve's own: one request id, no headers of Serve's, our words for a lost replica."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from app.cluster.autoscaling import by_places
from app.cluster.proxy_middleware import OneContract
from tests.unit.cluster.asgi_client import Exchange


def through(*headers: tuple[bytes, bytes], status: int = 200, path: str = "/complete", given: dict | None = None):
    """The answer, and the headers that the application saw."""
    seen = []

    async def app(scope, receive, send):
        seen.extend(scope["headers"])
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": b"Internal Server Error"})

    exchange = asyncio.run(Exchange(path=path, headers=given).feed().run(OneContract(app)))
    return exchange, seen


OURS = (b"x-instance", b"r1")


def test_of_two_request_ids_ours_is_kept():
    exchange, _ = through((b"x-request-id", b"ours"), OURS, (b"X-Request-ID", b"rays"))
    start = exchange.sent[0]
    assert [value for name, value in start["headers"] if name == b"x-request-id"] == [b"ours"]


def test_an_id_that_is_not_well_formed_and_serves_own_headers_go_no_further():
    given = {"X-Request-Id": "a b", "X-Request-Timeout-Seconds": "1", "X-Request-Disconnect-Disabled": "?1", "X-A": "b"}
    assert through(OURS, given=given)[1] == [(b"x-a", b"b")]
    assert through(OURS, given={"X-Request-Id": "well.formed-1"})[1] == [(b"x-request-id", b"well.formed-1")]


@pytest.mark.parametrize("status", [500, 503])
def test_what_the_proxy_says_of_a_lost_replica_becomes_our_envelope(status):
    exchange, _ = through((b"content-type", b"text/plain"), status=status)
    body = json.loads(exchange.body)
    assert exchange.status == 503 and body["error"]["code"] == "replica_lost"
    assert exchange.headers["retry-after"] == "1" and exchange.headers["x-request-id"] == body["request_id"]


async def fails(_scope, _receive, _send):
    raise RuntimeError("the replica went away")


async def says_nothing(_scope, _receive, _send):
    return


@pytest.mark.parametrize("app", [fails, says_nothing])
def test_a_proxy_that_has_no_answer_says_that_the_replica_is_lost(app):
    exchange = asyncio.run(Exchange(path="/complete").feed().run(OneContract(app)))
    assert exchange.status == 503 and json.loads(exchange.body)["error"]["code"] == "replica_lost"


def test_an_answer_that_fails_behind_its_head_is_cut():
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [OURS]})
        raise RuntimeError("the replica went away")

    with pytest.raises(RuntimeError):
        asyncio.run(Exchange(path="/complete").feed().run(OneContract(app)))


def test_what_a_replica_says_itself_and_serves_own_routes_stay_as_they_are():
    assert through(OURS, status=500)[0].body == b"Internal Server Error"
    assert through(status=503, path="/-/healthz")[0].status == 503
    assert through(status=404)[0].body == b"Internal Server Error"


def context(taken, num_replicas=1):
    config = SimpleNamespace(get_target_ongoing_requests=lambda: 8.0)
    metrics = None if taken is None else {"places": dict(enumerate(taken))}
    return SimpleNamespace(current_num_replicas=num_replicas, aggregated_metrics=metrics, config=config)


@pytest.mark.parametrize(
    ("taken", "num_replicas", "wanted"),
    [([11.0], 1, 11 / 8), ([11.0, 11.0], 2, 22 / 8), ([0.0, 2.0], 2, 2 / 8), (None, 3, 3.0), ([], 2, 2.0)],
)
def test_the_number_of_replicas_follows_the_places_taken(taken, num_replicas, wanted):
    assert by_places(context(taken, num_replicas))[0] == wanted
