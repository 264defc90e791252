"""`make run` where nobody sits at a terminal: in a service, in CI, behind a pipe."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_run_without_a_terminal_says_nothing_of_job_control(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\ncase "$1" in -c) exit 0;; esac\nexit 7\n')
    python.chmod(0o755)
    installed = tmp_path / "installed"
    installed.touch()
    command = ["make", "--no-print-directory", f"--old-file={installed}", f"VENV={tmp_path}", "run"]
    # A session of its own has no terminal that the shell could open.
    # `make test` runs this as well: a make below another one begins its lines otherwise.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in outer}
    options = {"capture_output": True, "text": True, "timeout": 60, "start_new_session": True}
    made = subprocess.run(command, cwd=ROOT, env=env, **options)
    assert made.returncode == 2
    assert made.stdout == ""
    assert [line for line in made.stderr.splitlines() if not line.startswith("make:")] == []
    assert "Error 7" in made.stderr
