"""``forklift servers`` lists a registry's servers with what they say of themselves now."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from app.cli.checking.extras import registry_check
from app.cli.checking.findings import Situation
from app.cli.checking.server import _check_registry
from app.cli.watching.snapshot import Snapshot, parse
from app.core.settings import load_settings
from tests.scripted_server import ScriptedServer


@pytest.fixture
def server():
    found = ScriptedServer("a")
    found.page = lambda path: (
        (200, {"X-Load": "3/11"}, b'{"state": "ready"}')
        if path == "/readyz"
        else (200, {}, b'{"data": [{"id": "the-model"}]}')
    )
    yield found
    found.stop()


def test_each_server_is_listed_with_its_own_word(forklift, server):
    address = server.entry.http.removeprefix("http://")
    result = forklift("servers", f"forklift://{address},127.0.0.1:1", "--json")
    assert result.exit_code == 0, result.output
    gone, there = json.loads(result.output)
    assert (gone["http"], gone["answers"], gone["load"]) == ("http://127.0.0.1:1", False, None)
    assert (there["answers"], there["state"], there["load"], there["models"]) == (True, "ready", "3/11", ["the-model"])


def test_the_table_says_which_answers(forklift, server):
    address = server.entry.http.removeprefix("http://")
    result = forklift("servers", f"forklift://{address},127.0.0.1:1", "--once")
    assert result.exit_code == 0, result.output
    for word in ("2 servers", "no answer", "ready", "3/11", "the-model"):
        assert word in result.output


def test_a_key_that_cannot_be_sent_is_one_line_without_it(forklift):
    result = forklift("servers", "forklift://127.0.0.1:1", "--once", "--api-key", "sesame-KEY\nX: y")
    assert result.exit_code == 1
    assert "control character" in result.stderr
    assert "sesame" not in result.output


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b'{"state": 5}', b'{"state": "\\u001b[31m\\u202e"}', b"\xff", b"{}" * 9000]
)
def test_what_a_server_says_steers_no_terminal(forklift, server, answer):
    server.page = lambda _path: (200, {"X-Load": "\x1b[31m"}, answer)
    address = server.entry.http.removeprefix("http://")
    result = forklift("servers", f"forklift://{address}", "--once")
    assert result.exit_code == 0
    assert not any(character in result.output for character in ("\x1b", "\x9b", "\u202e"))


@pytest.mark.parametrize("registry", ["http://x", "zookeeper://", "forklift://a?b"])
def test_what_is_no_registry_is_one_line(forklift, registry):
    result = forklift("servers", registry, "--once")
    assert result.exit_code == 1
    assert result.output.count("\n") == 1


def findings(**settings):
    given = {f"FORKLIFT_{name.upper()}": value for name, value in settings.items()}
    return list(registry_check.check(Situation(given, load_settings(given))))


def test_the_doctor_looks_at_the_registry(monkeypatch):
    monkeypatch.setattr(registry_check, "LIMIT_S", 0.1)
    assert findings() == []
    assert [one.level for one in findings(registry="etcd://h")] == ["fault"]
    (found,) = findings(registry="zookeeper://127.0.0.1:1")
    assert found.level == "warning"
    assert "127.0.0.1:1 does not answer" in found.text


@pytest.mark.parametrize(
    ("body", "levels"),
    [({}, []), ({"registry": {"connected": True}}, ["ok"]), ({"registry": {"connected": False}}, ["warning"])],
)
def test_the_doctor_asks_a_server_for_its_registry(body, levels):
    assert [one.level for one in _check_registry(body)] == levels


@pytest.mark.parametrize("connected", [0, 1])
def test_top_knows_a_registry_that_is_away(connected):
    registry = CollectorRegistry()
    Gauge("forklift_registry_connected", "x", registry=registry).set(connected)
    values = parse(generate_latest(registry).decode())
    assert Snapshot(0.0, "ready", 1.0, [], values).is_unregistered is not bool(connected)
    assert not Snapshot(0.0, "ready", 1.0, [], {}).is_unregistered
