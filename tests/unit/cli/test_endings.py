"""However a command's streams, its server or its user end it: 0, 1 or 130, at most one line, no traceback, no key."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from app import client
from tests.unit.cli.odd_server import ODD, chunked, events_of, odd_server, whole
from tests.unit.cli.terminal import terminal

PROGRAM = [sys.executable, "-m", "app.cli"]
KEY = "sesame-KEY"
DEMO = Path(client.__file__).parent / "models" / "demo"
HEAVY = ("doctor here", "models here", "report", "pack")
ANSI = ("\x1b", "\x9b", "\u202e")


def commands(url: str) -> dict[str, list[str]]:
    """Those that ask a server."""
    return {
        "complete": ["complete", "x", "--url", url],
        "chat": ["chat", "--url", url],
        "models": ["models", url],
        "top": ["top", "--once", "--interval", "0.1", "--url", url],
        "doctor": ["doctor", "--url", url],
        "bench": ["bench", url, "-n", "2", "-c", "1", "--new-tokens", "2", "--timeout", "20"],
    }


def others(folder: Path) -> dict[str, list[str]]:
    """Those that ask nobody."""
    return {
        "doctor here": ["doctor"],
        "models here": ["models", str(DEMO)],
        "report": ["report", "resources", "--model", str(DEMO)],
        "pack": ["pack", "--model", str(DEMO), "--no-wheels", "--output", str(folder / "kit")],
        "verify": ["pack", "--verify", str(folder / "none")],
        "serve": ["serve", "--max-queue", "-1"],
        "help": ["--help"],
    }


def full() -> dict[str, Any]:
    return {"stdout": os.open("/dev/full", os.O_WRONLY)}


def left() -> dict[str, Any]:
    ours, theirs = os.pipe()
    os.close(ours)
    return {"stdout": theirs}


STREAMS: dict[str, Callable[[], dict[str, Any]]] = {
    "pipe": lambda: {"stdout": subprocess.PIPE},
    "full": full,
    "closed": lambda: {"preexec_fn": lambda: os.close(1)},
    "all closed": lambda: {"preexec_fn": lambda: os.closerange(0, 3)},
    "reader left": left,
    "latin-1": lambda: {"stdout": subprocess.PIPE, "env": {"PYTHONIOENCODING": "latin-1"}},
    "ascii": lambda: {"stdout": subprocess.PIPE, "env": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}},
}


def run(arguments: list[str], kind: str) -> tuple[int, str, str]:
    options = STREAMS[kind]()
    environ = {**os.environ, **options.pop("env", {})}
    options = {"stdout": subprocess.DEVNULL, **options} if "preexec_fn" not in options else options
    try:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            input=b"hello\n",
            stderr=subprocess.PIPE,
            env=environ,
            timeout=300,
            check=False,
            **options,
        )
    finally:
        if isinstance(descriptor := options.get("stdout"), int) and descriptor >= 0:
            os.close(descriptor)
    return done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")


def require_quiet_end(code: int, errors: str, allowed: tuple[int, ...] = (0, 1)) -> None:
    assert code in allowed, errors
    assert "Traceback" not in errors and "Exception ignored" not in errors
    assert len([line for line in errors.splitlines() if line.startswith("forklift")]) <= 1


def behave(double: Any, name: str) -> Any:
    double.behave = "well" if name == "bench" else "native"
    return double


@pytest.mark.parametrize(
    ("name", "kind"), [("complete", "full"), ("complete", "ascii"), ("models", "closed"), ("bench", "full")]
)
def test_an_output_that_cannot_be_written_is_one_line(double, name, kind):
    code, output, errors = run(commands(behave(double, name).url)[name], kind)
    require_quiet_end(code, errors)
    if kind == "ascii":
        assert (code, output) == (0, "n?w\n\n")
    else:
        assert code == 1 and errors.startswith("forklift: cannot write the output: ") and errors.count("\n") == 1


def by_cost(names: Iterable[str]) -> list[Any]:
    """Commands that import no model library take under a second each."""
    return [pytest.param(name, marks=getattr(pytest.mark, "chaos" if name in HEAVY else "slow")) for name in names]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("name", by_cost(commands("")))
def test_a_command_that_asks_a_server_ends_well_on_every_kind_of_stream(double, name, kind):
    code, _, errors = run(commands(behave(double, name).url)[name], kind)
    require_quiet_end(code, errors)
    assert kind in ("all closed", "latin-1", "ascii", "pipe") or code == 1


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("name", by_cost(others(Path())))
def test_a_command_that_asks_nobody_ends_well_on_every_kind_of_stream(tmp_path, name, kind):
    code, _, errors = run(others(tmp_path)[name], kind)
    require_quiet_end(code, errors, (0, 1, 3))


@pytest.mark.parametrize("name", by_cost([*commands(""), *others(Path())]))
def test_a_command_ends_well_on_a_terminal(double, tmp_path, name):
    arguments = (commands(behave(double, name).url) | others(tmp_path))[name]
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs)
    os.close(theirs)
    process.stdin.write(b"hello\n")
    process.stdin.close()
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass
    os.close(ours)
    assert process.wait(60) in (0, 1, 3) and b"Traceback" not in shown


# The console script, which tells on a descriptor when ctrl-C has its meaning: before that, while the interpreter
# itself starts, it is Python's. Of what is imported by then nothing takes long.
TELLING = """
import os, sys
from app.core.system import interrupts
leave_at_once = interrupts.leave_at_once
def telling():
    leave_at_once()
    os.write({descriptor}, b"late" if "click" in sys.modules or "requests" in sys.modules else b"in time")
    os.close({descriptor})
interrupts.leave_at_once = telling
from app.cli.entry import run
run()
"""


def interrupted(arguments: list[str], after_s: float) -> tuple[int, str]:
    ours, theirs = os.pipe()
    program = [sys.executable, "-c", TELLING.format(descriptor=theirs)]
    process = subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[theirs],
    )
    try:
        os.close(theirs)
        assert os.read(ours, 100) == b"in time"
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    return process.returncode, errors.decode()


@pytest.mark.parametrize("name", ["doctor here", "complete"])
def test_ctrl_c_is_130_while_libraries_are_imported_and_while_a_server_is_waited_for(double, tmp_path, name):
    double.behave = "mute"
    for after_s in (0.0, 0.5):
        code, errors = interrupted((commands(double.url) | others(tmp_path))[name], after_s)
        assert (code, errors) == (130, "")


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5, 4.0])
@pytest.mark.parametrize("name", by_cost(["complete", "chat", "bench", "doctor here", "report", "pack"]))
def test_ctrl_c_is_130_at_any_time(double, tmp_path, name, after_s):
    double.behave = "mute"
    code, errors = interrupted((commands(double.url) | others(tmp_path))[name], after_s)
    assert "Traceback" not in errors
    assert code == 130 or (code in (0, 1) and name in ("pack", "report") and after_s > 1)
    assert not list(tmp_path.glob(".forklift-pack-*"))


@pytest.fixture(scope="module")
def odd():
    with odd_server() as server:
        yield server


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(client.time, "sleep", lambda _: None)


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


@pytest.mark.parametrize("key", [f"{KEY}\n", f"  {KEY} ", f"{KEY}\r\n"])
@pytest.mark.parametrize("name", commands(""))
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
