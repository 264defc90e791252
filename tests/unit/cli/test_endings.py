"""However a command's server ends it: 0, 1 or 130, at most one line, no traceback, no key, no escapes."""

from __future__ import annotations

import json

import pytest

from tests.thinned import few_of
from tests.unit.cli.every_command import behave, commands, require_quiet_end
from tests.unit.cli.odd_server import ODD, chunked, events_of, odd_server, whole
from tests.unit.cli.terminal import terminal

KEY = "sesame-KEY"
ANSI = ("\x1b", "\x9b", "\u202e")


@pytest.fixture(scope="module")
def odd():
    with odd_server() as server:
        yield server


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.mark.parametrize("name", commands(""))
@pytest.mark.parametrize("answer", ODD)
def test_an_answer_that_is_not_ours_is_one_line_for_every_command(forklift, odd, fast, name, answer):
    odd.answer = ODD[answer]
    result = forklift(*commands(odd.url)[name], "--api-key", KEY, text="hello\n")
    shown = result.stdout + result.stderr
    require_quiet_end(result.exit_code, result.stderr)
    assert not any(character in shown for character in ANSI) and KEY not in shown
    assert "unexpected" not in shown, "every kind of failure is foreseen"
    assert result.exit_code == 1
    if name != "doctor":
        assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize(
    ("url", "code"),
    [("http://127.0.0.1:99999", 1), ("http://[::1", 1), ("http://", 1), ("127.0.0.1:5000", 2), ("http://a..b", 1)],
)
@pytest.mark.parametrize("name", ["complete", "top", "doctor", "bench"])
def test_what_is_no_url_is_told_without_a_traceback(forklift, fast, name, url, code):
    result = forklift(*commands(url)[name])
    assert result.exit_code == code
    assert code == 2 or name == "doctor" or len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "key"),
    few_of([(name, f"  {KEY}\r\n") for name in commands("")] + [("chat", f"{KEY}\n"), ("chat", f"  {KEY} ")], 2),
)
def test_a_key_is_stripped_and_printed_by_no_command(forklift, double, name, key):
    result = forklift(*commands(behave(double, name).url)[name], env={"FORKLIFTCLIENT_API_KEY": key}, text="hello\n")
    assert set(double.keys) == {f"Bearer {KEY}"}
    assert KEY not in result.stdout + result.stderr + repr(result.exception)


@pytest.mark.parametrize("name", commands(""))
def test_a_key_that_cannot_be_sent_is_one_line_without_it(forklift, double, name):
    result = forklift(*commands(double.url)[name], "--api-key", f"{KEY}\nX: y", text="hello\n")
    assert result.exit_code == 1 and KEY not in result.stdout + result.stderr
    assert "control character" in result.stderr


def test_names_of_folders_do_not_steer_the_terminal(forklift, tmp_path):
    (tmp_path / "a\x1b[31m[red]\u202e").mkdir()
    (tmp_path / "a\x1b[31m[red]\u202e" / "config.json").write_text("{}")
    result = forklift("models", str(tmp_path))
    assert result.exit_code == 0 and "\\x1b[31m[red]\\u202e" in result.output
    assert not any(character in result.output for character in ANSI)
    doctor = forklift("doctor", "--model", str(tmp_path / "none\x1b[31m"))
    assert not any(character in doctor.output for character in ANSI)


def test_names_that_a_server_tells_do_not_steer_the_terminal(forklift, odd):
    odd.answer = whole(
        json.dumps({"data": [{"id": "m\x1b[2J[/b]\x9b", "task": "\u202e", "supports": "none"}]}).encode()
    )
    result = forklift("models", odd.url)
    assert (result.exit_code, "m\\x1b[2J[/b]\\x9b" in result.output) == (0, True)


def test_an_answer_is_shown_without_escapes_on_a_terminal_and_raw_elsewhere(forklift, odd):
    wild = "a\x1b[31m\x9bb\tc\n"
    last = {
        "completion": "",
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "total_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "timings": {"queue_ms": 1, "ttft_ms": 2, "total_ms": 3},
        "model": "m",
        "request_id": "r",
    }
    odd.answer = chunked(events_of({"completion": wild}, last))
    assert forklift("complete", "x", "--url", odd.url).stdout == wild + "\n"
    with terminal("complete", "x", "--url", odd.url) as screen:
        shown = screen.read_until(b"c\r\n").decode()
        assert "a\\x1b[31m\\x9bb" in shown and "\x1b" not in shown
        assert screen.wait() == 0
