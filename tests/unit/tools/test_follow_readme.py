"""The program that follows the README: failures are failures, and no process is left."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tools.follow_readme import (
    FollowError,
    empty_environment,
    run_commands,
    serving,
    session_members,
    wait_until_ready,
)
from tools.pages import Block


def commands(text: str) -> Block:
    return Block("sh", text, "run", 1)


def test_a_command_that_fails_is_named_with_its_line(tmp_path):
    with pytest.raises(FollowError, match="line 1: exit code 3"):
        run_commands(commands("echo before\n(exit 3)\necho after\n"), tmp_path, dict(os.environ))


def test_an_address_without_a_server_fails(tmp_path):
    with pytest.raises(FollowError, match="exit code 7"):
        run_commands(commands("curl http://127.0.0.1:1/\n"), tmp_path, dict(os.environ))


def test_nothing_of_the_callers_settings_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("FORKLIFT_WORKERS", "3")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PIP_TIMEOUT", "5")
    environ = empty_environment(tmp_path)
    assert environ["PIP_TIMEOUT"] == "5"
    assert not {"FORKLIFT_WORKERS", "PYTHONPATH", "VIRTUAL_ENV"} & environ.keys()


def test_a_server_that_ends_before_it_is_ready_is_noticed(tmp_path):
    log = tmp_path / "log"
    with serving("echo no luck; exit 3", tmp_path, dict(os.environ), log) as process:
        process.wait(timeout=10)
        with pytest.raises(FollowError, match=r"ended with 3:\nno luck"):
            wait_until_ready(process, 5, log)


def test_every_process_of_the_server_is_ended_whatever_happens(tmp_path):
    pid_file = tmp_path / "pid"
    started: list[subprocess.Popen[bytes]] = []

    def fail_while_serving() -> None:
        command = f"sleep 600 & echo $! >{pid_file}; wait"
        with serving(command, tmp_path, dict(os.environ), tmp_path / "log") as process:
            started.append(process)
            wait_for_file(pid_file)
            assert int(pid_file.read_text()) in session_members(process.pid)
            raise FollowError("a command failed")

    with pytest.raises(FollowError):
        fail_while_serving()
    assert session_members(started[0].pid) == []


def wait_for_file(path: Path) -> None:
    end_s = time.monotonic() + 10
    while not (path.exists() and path.read_text().strip()) and time.monotonic() < end_s:
        time.sleep(0.02)
