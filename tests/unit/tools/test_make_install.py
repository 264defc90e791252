"""What `make run` installs with, and what it says before: the real Makefile, interpreters that only write down."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OUTER = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "TORCH", "VENV")
# An interpreter: its version, environments that are copies of it, and a pip and a torch that are there or not.
INTERPRETER = """#!/bin/sh
case "$*" in
-V) echo "Python {version}";;
*version_info*) exit {is_old};;
"-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; echo "venv of {version}"; touch "$4/pip";;
"-c import pip") test -e "${{0%/bin/python}}/pip";;
"-c import torch") test -e "${{0%/bin/python}}/torch";;
"-m pip install "*) shift 2; echo "pip $*"; case "$*" in *whl/cpu*) ! test -e unreachable;; esac;;
*greeting*) echo "the greeting";;
*launcher*) echo "the server"; exit 7;;
*) echo "unforeseen: $*"; exit 9;;
esac
"""
HINT = "No GPU is seen here."

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@dataclass
class Clone:
    """A copy of what `make run` reads, and the interpreters on its PATH."""

    folder: Path

    def add_interpreter(self, name: str, version: str) -> None:
        path = self.folder / "path" / name
        path.write_text(INTERPRETER.format(version=version, is_old=int(version < "3.11")))
        path.chmod(0o755)

    def make(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name not in OUTER}
        return subprocess.run(
            ["make", "--no-print-directory", "run", "GPU_FILE=/nowhere", *arguments],
            cwd=self.folder,
            env=kept | {"PATH": f"{self.folder / 'path'}:/usr/bin:/bin"} | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    for name in ("Makefile", "setup.cfg", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "path").mkdir()
    made = Clone(tmp_path)
    for version in ("3.10", "3.11", "3.12"):
        made.add_interpreter(f"python{version}", f"{version}.4")
    made.add_interpreter("python3", "3.11.4")
    return made


def said(made: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that are not make's own, in which it repeats a command or tells its end."""
    lines = (made.stdout + made.stderr).splitlines()
    return [line for line in lines if not line.startswith(("make", ".venv/bin/python"))]


def test_an_old_interpreter_is_one_line_and_leaves_nothing(clone: Clone) -> None:
    made = clone.make("PYTHON=python3.10")
    assert made.returncode == 2
    assert said(made) == [
        "Forklift needs Python 3.11 or 3.12, and python3.10 is Python 3.10.4: make run PYTHON=python3.12"
    ]
    assert not (clone.folder / ".venv").exists()


def test_an_interpreter_that_is_not_there_is_one_line(clone: Clone) -> None:
    made = clone.make("PYTHON=python3.9")
    assert said(made) == ["Forklift needs Python 3.11 or 3.12, and python3.9 is not here: make run PYTHON=python3.12"]


def test_an_environment_of_an_old_interpreter_is_made_anew(clone: Clone) -> None:
    # As versions of Forklift that did not look left it behind.
    subprocess.run([clone.folder / "path/python3.10", "-m", "venv", "--clear", ".venv"], cwd=clone.folder, check=True)
    made = clone.make("PYTHON=python3.11")
    assert said(made)[0] == "venv of 3.11.4"
    assert said(made)[-2:] == ["the greeting", "the server"]


def test_an_environment_is_kept_until_another_interpreter_is_asked_for_by_name(clone: Clone) -> None:
    assert said(clone.make())[0] == "venv of 3.11.4"
    assert said(clone.make()) == ["the greeting", "the server"]
    assert said(clone.make(PYTHON="python3.12"))[0] == "venv of 3.12.4"
    assert said(clone.make("PYTHON=python3.12")) == ["the greeting", "the server"]
    assert said(clone.make()) == ["the greeting", "the server"], "the default asks for none by name"
    assert "is Python 3.10.4" in said(clone.make("PYTHON=python3.10"))[0]


def test_an_environment_whose_interpreter_is_gone_is_made_anew(clone: Clone) -> None:
    clone.make()
    (clone.folder / ".venv/bin/python").unlink()
    (clone.folder / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    assert said(clone.make())[0] == "venv of 3.11.4"


def test_an_environment_without_pip_is_made_anew(clone: Clone) -> None:
    # What Debian's venv leaves where python3-venv is not installed.
    clone.make()
    (clone.folder / ".venv/installed").unlink()
    (clone.folder / ".venv/pip").unlink()
    assert said(clone.make())[0] == "venv of 3.11.4"


def test_without_a_gpu_the_smaller_build_is_told_before_anything_is_installed(clone: Clone) -> None:
    lines = said(clone.make())
    told = [index for index, line in enumerate(lines) if HINT in line]
    installs = [index for index, line in enumerate(lines) if line.startswith("pip ")]
    assert len(told) == 1 and len(installs) == 1 and told[0] < installs[0]
    words = " ".join(lines[: installs[0]])
    assert "about 5 GB" in words and "0.8 GB" in words and "make run TORCH=cpu" in words
    assert_shows_progress(lines[installs[0]])
    assert "download.pytorch.org" not in "".join(lines)


def test_the_smaller_build_is_installed_from_pytorchs_index_before_the_rest(clone: Clone) -> None:
    lines = said(clone.make("TORCH=cpu"))
    torch, rest = [line for line in lines if line.startswith("pip ")]
    assert HINT not in "".join(lines)
    assert torch.endswith(f"--no-deps --extra-index-url https://download.pytorch.org/whl/cpu {torch_build()}")
    assert rest.endswith("--editable .") and "download.pytorch.org" not in rest
    assert_shows_progress(torch)
    assert_shows_progress(rest)


def test_where_the_smaller_build_is_not_found_the_larger_one_is_not_taken(clone: Clone) -> None:
    (clone.folder / "unreachable").touch()
    made = clone.make("TORCH=cpu")
    assert made.returncode == 2
    assert len([line for line in said(made) if line.startswith("pip ")]) == 1
    assert said(made)[-1].startswith(f"{torch_build()} was found neither on https://download.pytorch.org/whl/cpu nor")
    assert not (clone.folder / ".venv/installed").exists()


@pytest.mark.parametrize("known", ["torch", "gpu"])
def test_nothing_is_told_where_torch_or_a_gpu_is_there(clone: Clone, known: str) -> None:
    clone.make()
    (clone.folder / ".venv/installed").unlink()
    (clone.folder / ".venv" / known).touch()
    lines = said(clone.make(f"GPU_FILE={clone.folder}/.venv/gpu"))
    assert HINT not in "".join(lines) and any(line.startswith("pip ") for line in lines)


def test_another_word_for_the_build_is_refused(clone: Clone) -> None:
    made = clone.make("TORCH=cuda")
    assert (made.returncode, made.stdout) == (2, "")
    assert len(made.stderr.splitlines()) == 1 and "TORCH is cpu or not set at all, not cuda" in made.stderr


def torch_build() -> str:
    """The tested version's CPU build; only on Linux has it a name of its own."""
    [pin] = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    return pin + ("+cpu" if sys.platform == "linux" else "")


def assert_shows_progress(pip: str) -> None:
    assert "--progress-bar on" in pip and "--quiet" not in pip
