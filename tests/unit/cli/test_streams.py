"""However a command's streams or its user end it: 0, 1 or 130, at most one line, no traceback. Real programs."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.thinned import few_of
from tests.unit.cli.every_command import behave, commands, others, require_quiet_end
from tests.unit.cli.interrupting import interrupted

PROGRAM = [sys.executable, "-m", "app.cli"]
HEAVY = ("doctor here", "models here", "report", "pack")


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


@pytest.mark.parametrize(
    ("name", "kind"), few_of([("complete", "full"), ("complete", "ascii"), ("models", "closed"), ("bench", "full")], 2)
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
