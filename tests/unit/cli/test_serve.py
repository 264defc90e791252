"""``forklift serve`` has a flag for every setting and starts the server that gunicorn would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.commands import serve
from app.cli.main import main
from app.core.settings import Settings
from tests.unit.cli.interrupting import interrupted


@pytest.fixture
def started(monkeypatch):
    """The command and environment that the program would become."""
    calls = []

    def execve(path, command, environ):
        calls.append((command, environ))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    return calls


def run(*arguments: str):
    return CliRunner().invoke(main, arguments)


def test_flags_become_settings(started):
    result = run("serve", "--max-queue", "3", "--model", "/models/m", "--no-prefix-cache", "--dtype", "bfloat16")
    assert result.exit_code == 0
    [(command, environ)] = started
    assert environ["FORKLIFT_MAX_QUEUE"] == "3"
    assert environ["FORKLIFT_MODEL"] == "/models/m"
    assert environ["FORKLIFT_PREFIX_CACHE"] == "False"
    assert "FORKLIFT_WORKERS" not in environ
    assert command[-1] == "wsgi:app"


def test_a_flag_wins_over_the_environment(started, monkeypatch):
    monkeypatch.setenv("FORKLIFT_MAX_QUEUE", "7")
    run("serve", "--max-queue", "3")
    assert started[0][1]["FORKLIFT_MAX_QUEUE"] == "3"


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--max-queue", "-1"], 3), (["--max-queue", "x"], 2), (["--no-such-flag"], 2)]
)
def test_what_is_wrong_ends_with_a_line_and_a_code(started, arguments, code):
    result = run("serve", *arguments)
    assert result.exit_code == code
    assert not started


def test_every_setting_has_a_flag_with_its_description():
    text = " ".join(run("serve", "--help").output.split())
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert " ".join(field.description.split())[:25] in text


def test_the_server_folder_has_what_gunicorn_needs():
    folder = serve.server_folder()
    assert (folder / "gunicorn.conf.py").is_file()
    assert (folder / "wsgi.py").is_file()


@pytest.mark.slow
def test_what_lies_in_the_working_folder_is_not_run(tmp_path):
    """Neither a package or module called like ours, nor one called like a library."""
    (tmp_path / "app").mkdir()
    for name in ("app/__init__.py", "wsgi.py", "json.py", "click.py", "gunicorn.py", "gunicorn.conf.py"):
        (tmp_path / name).write_text("raise SystemExit('not ours')")
    program = Path(sys.executable).with_name("forklift")
    environ = os.environ | {"FORKLIFT_MODEL": str(tmp_path / "none"), "FORKLIFT_BIND": "127.0.0.1:0"}
    ended = subprocess.run([program, "serve"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (3, f"forklift: the model folder {tmp_path / 'none'} does not exist\n")


@pytest.mark.parametrize(
    "after_s", [0.3, pytest.param(0.6, marks=pytest.mark.chaos), 1.0, pytest.param(2.0, marks=pytest.mark.chaos)]
)
def test_ctrl_c_while_the_server_starts_shows_no_traceback(after_s):
    """Before the program replaces itself, while Gunicorn is imported, and once the master has its handlers."""
    code, errors = interrupted(["serve"], after_s, FORKLIFT_BIND="127.0.0.1:0", FORKLIFT_LOG_FORMAT="json")
    assert code in (0, 130)
    assert "Traceback" not in errors


def test_the_launcher_takes_an_interrupt_that_came_before_its_first_line(tmp_path):
    """What `forklift serve` blocks while Python itself starts is not lost."""
    script = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        f"os.execv(sys.executable, [sys.executable, '-P', {str(serve.LAUNCHER)!r}, 'wsgi:app'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "")
