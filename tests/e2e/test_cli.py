"""The commands that talk to a server, against a real one with the demo model."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from app.cli.main import main
from tests.service.conftest import StartServer, SteppingServer, server_starter, wait_for
from tests.unit.cli.terminal import CTRL_C, terminal

pytestmark = pytest.mark.slow  # a real server; tests/unit/cli has each command with a stand-in


@pytest.fixture
def forklift(demo, monkeypatch) -> Any:
    """Runs the program with the server's address in the environment."""
    monkeypatch.setenv("FORKLIFTCLIENT_URL", demo.url)
    monkeypatch.delenv("FORKLIFTCLIENT_API_KEY", raising=False)

    def run(*arguments: str, text: str | None = None):
        return CliRunner().invoke(main, arguments, input=text)

    return run


def test_complete_writes_what_the_server_answers(demo, forklift):
    expected = demo.post("/complete", json={"prompt": "def add(a, b):\n", "max_new_tokens": 24}).json()["completion"]
    result = forklift("complete", "def add(a, b):\n", "--max-new-tokens", "24", "--stats")
    assert (result.exit_code, result.stdout) == (0, expected + "\n")
    assert "+ 24 tokens" in result.stderr or "stop]" in result.stderr


def test_chat_carries_the_conversation_on(forklift):
    result = forklift("chat", "--max-new-tokens", "24", text="What does os.getcwd do?\nAnd os.getpid?\n/quit\n")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) >= 2


def test_what_the_server_refuses_is_one_line(forklift):
    result = forklift("complete", "x", "--top-p", "3")
    assert result.exit_code == 1
    assert "400 invalid_parameter: top_p" in result.stderr


def test_models_lists_what_is_served(forklift):
    [row] = json.loads(forklift("models", "--json").output)
    assert row["name"] == "forklift-demo"
    assert (row["task"], row["chat"], row["infill"]) == ("generate", True, True)


def test_top_shows_the_slot_and_what_it_has_done(forklift):
    forklift("complete", "def f(", "--max-new-tokens", "8")
    result = forklift("top", "--once", "--interval", "0.1")
    assert result.exit_code == 0
    assert "ready" in result.output
    assert "MiB" in result.output
    assert "first token" in result.output


@pytest.fixture
def start_stepping(tmp_path) -> Iterator[StartServer]:
    """The real application on a stand-in for the engine."""
    yield from server_starter(tmp_path, SteppingServer)


def address(server: SteppingServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_top_goes_on_until_ctrl_c_also_without_the_server(start_stepping):
    server = start_stepping()
    with terminal("top", "--interval", "0.2", "--url", address(server)) as screen:
        screen.read_until(b"ready")
        screen.read_until(b"ready")
        server.signal(signal.SIGQUIT)
        screen.read_until(b"no answer")
        screen.type(CTRL_C)
        assert screen.wait() == 130


def test_the_doctor_finds_nothing_wrong_with_it(demo, forklift):
    result = forklift("doctor", "--url", demo.url, "--json")
    found = json.loads(result.output)
    assert (result.exit_code, found["ok"]) == (0, True)
    assert [row["text"] for row in found["findings"] if row["check"] == "models"] == ["forklift-demo"]


@pytest.mark.parametrize("kind", ["completions", "chat"])
def test_bench_measures_both_routes_streamed(demo, forklift, tmp_path, kind):
    figures = tmp_path / "figures.json"
    options = ["--kind", kind, "-n", "4", "-c", "2", "--new-tokens", "8", "--prompt-tokens", "40", "--ignore-eos"]
    result = forklift("bench", demo.url, *options, "--json", str(figures))
    assert result.exit_code == 0, result.output
    found = json.loads(figures.read_text())
    assert (found["figures"]["ok"], found["figures"]["new_tokens_mean"]) == (4, 8.0)
    assert found["figures"]["ttft_p50_ms"] > 0
    # Random words: their tokens are about what was asked for.
    assert 25 <= found["figures"]["prompt_tokens_mean"] <= 60


def test_keys_are_sent_and_their_lack_is_told(start_stepping, forklift):
    server = start_stepping(api_keys="sesame")
    assert "401" in forklift("complete", "x", "--url", address(server)).stderr
    assert "another API key" in forklift("doctor", "--url", address(server)).output
    assert "metrics are refused" in forklift("top", "--once", "--interval", "0.1", "--url", address(server)).output
    key = ["--api-key", "sesame"]
    assert forklift("complete", "x", "--url", address(server), "--max-new-tokens", "2", *key).exit_code == 0
    assert "tokens/s" in forklift("top", "--once", "--interval", "0.1", "--url", address(server), *key).output
    assert forklift("doctor", "--url", address(server), *key).exit_code == 0
    server.signal(signal.SIGTERM)
    wait_for(lambda: server.process.poll() is not None, "the server's end")
    assert forklift("doctor", "--url", address(server), *key).exit_code == 1
