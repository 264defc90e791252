"""``forklift top`` reads two pages, reckons rates between looks, and outlives the server that it watches."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from rich.console import Console

from app.cli.commands.top import refresh
from app.cli.server_connection import CommandError, Server
from app.cli.watching.history import History
from app.cli.watching.server_view import frame
from app.cli.watching.snapshot import Snapshot, look, parse, quantile

SLOTS = [
    {"slot": 0, "pid": 11, "gpus": ["GPU-a"], "state": "ready", "num_running": 2, "num_waiting": 1},
    {"slot": 1, "pid": None, "gpus": [], "state": "loading", "num_running": 0, "num_waiting": 0},
]


class Page:
    """A server's counters, as prometheus_client itself writes them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.tokens = Counter("forklift_generation_tokens", "x", registry=self._registry)
        self.errors = Counter("forklift_request_errors", "x", ["reason"], registry=self._registry)
        self.requests = Counter("forklift_requests", "x", ["route", "status"], registry=self._registry)
        self.ttft = Histogram("forklift_time_to_first_token_seconds", "x", registry=self._registry, buckets=(1, 2, 4))

    def snapshot(self, at_s: float, state: str = "ready") -> Snapshot:
        return Snapshot(at_s, state, 0.5, SLOTS, parse(generate_latest(self._registry).decode()))


def shown(history: History) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(frame("http://s", history))
    return console.file.getvalue()


def test_rates_are_what_was_counted_between_looks():
    page, history = Page(), History()
    page.tokens.inc(1000)
    history.add(page.snapshot(0.0))
    assert history.rate("generation_tokens_total") is None
    page.tokens.inc(50)
    history.add(page.snapshot(2.0))
    assert history.rate("generation_tokens_total") == pytest.approx(25.0)
    assert history.rates("generation_tokens_total") == [pytest.approx(25.0)]


def test_latencies_are_those_of_the_last_minute():
    page, history = Page(), History()
    for _ in range(100):
        page.ttft.observe(3.0)
    history.add(page.snapshot(0.0))
    assert history.quantile("time_to_first_token_seconds", 0.5) == pytest.approx(3.0)
    page.ttft.observe(0.5)
    history.add(page.snapshot(1.0))
    assert history.quantile("time_to_first_token_seconds", 0.5) == pytest.approx(0.5)


def test_requests_of_those_who_watch_are_not_counted():
    page = Page()
    for route, count in (("/complete", 5), ("/readyz", 100), ("/metrics", 100)):
        page.requests.labels(route, "200").inc(count)
    assert page.snapshot(0.0).total("requests_total") == 5


def test_looks_older_than_the_window_are_forgotten():
    page, history = Page(), History()
    for second in range(200):
        history.add(page.snapshot(float(second)))
    assert len(history.rates("requests_total")) == 60


def test_another_server_at_the_same_address_starts_a_new_history():
    page, history = Page(), History()
    page.requests.labels("/complete", "200").inc(5)
    history.add(page.snapshot(0.0))
    history.add(Page().snapshot(1.0))
    assert history.rate("requests_total") is None


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({1.0: 10.0, 2.0: 20.0, math.inf: 20.0}, 0.5, 1.0),
        ({1.0: 0.0, 2.0: 10.0, math.inf: 10.0}, 0.5, 1.5),
        ({1.0: 0.0, 2.0: 0.0, math.inf: 4.0}, 0.95, 2.0),
        ({1.0: 0.0, math.inf: 0.0}, 0.5, None),
        ({}, 0.5, None),
    ],
)
def test_quantiles_lie_within_their_bucket(buckets, share, expected):
    assert quantile(buckets, share) == expected


def test_the_picture_shows_slots_rates_and_errors():
    page, history = Page(), History()
    history.add(page.snapshot(0.0))
    page.tokens.inc(1234)
    page.errors.labels("overloaded").inc(3)
    history.add(page.snapshot(1.0))
    text = shown(history)
    for expected in ("ready", "loading", "GPU-a", "2 / 1", "1,234.0", "overloaded 3", "http://s"):
        assert expected in text


def test_a_server_that_goes_away_leaves_its_last_picture_and_the_reason(double):
    page, history = Page(), History()
    history.add(page.snapshot(0.0))
    server = Server("http://127.0.0.1:1")
    refresh(server, history)
    assert "no answer: cannot reach http://127.0.0.1:1: Connection refused" in " ".join(shown(history).split())
    assert "GPU-a" in shown(history)
    history.add(page.snapshot(1.0))
    assert "no answer" not in shown(history)


def test_a_server_that_was_never_there_is_a_picture_too():
    history = History()
    refresh(Server("http://127.0.0.1:1"), history)
    assert "no answer" in shown(history)


def test_a_server_of_another_kind_is_told_from_a_forklift(double):
    with pytest.raises(CommandError, match="no JSON of slots"):
        look(Server(double.url))


def test_once_without_a_server_exits_with_1(forklift):
    result = forklift("top", "--once", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "Connection refused" in result.output


def test_each_model_is_shown_with_its_task_and_how_it_is_run():
    models = [
        {"model": "code", "task": "generate", "state": "loaded", "engine": "mixed", "dropped": ["fused"]}
        | {"compiled": False, "compiling": True},
        {"model": "t5\x1b", "task": "seq2seq", "state": "unloaded", "engine": "", "dropped": []}
        | {"compiled": False, "compiling": False},
    ]
    history = History()
    history.add(Snapshot(0.0, "ready", 1.0, SLOTS, models=models))
    text = shown(history)
    for told in ("code", "generate", "mixed, being compiled", "fused", "t5\\x1b", "seq2seq", "unloaded"):
        assert told in text


def test_the_busiest_routes_are_named_with_their_rates():
    page, history = Page(), History()
    history.add(page.snapshot(0.0))
    page.requests.labels("/translate", "200").inc(30)
    page.requests.labels("/classify", "200").inc(5)
    history.add(page.snapshot(10.0))
    assert "requests/s: /translate 3.0, /classify 0.5" in shown(history)


def test_the_replica_that_answers_is_named_and_several_in_turn_are_told():
    page, history = Page(), History()
    for at, names in enumerate((["r1"], ["r1"], ["r1", "r2"])):
        history.add(dataclasses.replace(page.snapshot(float(at)), instances=frozenset(names)))
        if at == 1:
            assert "replica r1" in shown(history)
    assert "2 replicas answer in turn" in shown(history)
