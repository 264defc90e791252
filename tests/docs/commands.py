"""What a block of a page is, and how its commands are run here.

The kinds, as the comment before a block names them:

    run               commands that are run against a server with the demo model and must succeed
    answer            what the block before it printed: here, the same fields
    serve [FAMILY]    starts a server, which must become ready and end with 0 at SIGTERM; a model below /models is
                      replaced by a tiny one of FAMILY
    run-by FILE       what FILE runs elsewhere, line by line
    container FILE..  what needs Docker; its files are there and its syntax is right, and no more is checked here
    example           no commands: a file or a piece of one, in a language whose syntax is checked
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

from tests.conftest import ModelFolder
from tests.service.conftest import unused_port
from tools.pages import REPOSITORY, Block, blocks

PAGES = ("README.md", "docs/quick-start.md")
KINDS = {"run", "answer", "serve", "run-by", "container", "example"}
SHELL = "sh"
LANGUAGES = {SHELL, "python", "json", "text", "toml", "yaml", "ini", "mermaid"}
ADDRESS = "127.0.0.1:5000"
# An answer with an error status fails its command, and nothing but the answer is printed.
STRICT_CURL = 'curl() { command curl -sS --fail-with-body "$@"; }\nset -e\n'
BIN = Path(sys.executable).parent


def blocks_of(page: str) -> list[Block]:
    return blocks((REPOSITORY / page).read_text(encoding="utf-8"))


def of_kind(*kinds: str) -> list[tuple[str, Block]]:
    """Page and block of all blocks of these kinds; the same commands on two pages come once."""
    found = {(block.mark, block.text): (page, block) for page in PAGES for block in blocks_of(page)}
    return [(page, block) for page, block in found.values() if block.kind in kinds]


def name_of(pair: object) -> str:
    """How a test's report calls a block."""
    page, block = pair  # type: ignore[misc]
    return f"{page}:{block.line}"


def clean_environment(**settings: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests, and with this Python's programs first."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FORKLIFT_")}
    clean.pop("CUDA_VISIBLE_DEVICES", None)
    return clean | {"PATH": f"{BIN}:{os.environ['PATH']}", "FORKLIFT_DEVICE": "cpu"} | settings


def run(block: Block, port: int) -> str:
    """What the commands print. Raises ``CalledProcessError`` where one fails."""
    text = without_activation(block.text.replace(ADDRESS, f"127.0.0.1:{port}"))
    is_shell = block.language == SHELL
    command = ["bash", "-c", STRICT_CURL + text] if is_shell else [sys.executable, "-W", "error", "-c", text]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}:\n{text}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def without_activation(text: str) -> str:
    """This environment's programs stand first on the path already, wherever it lies."""
    return text.replace(". .venv/bin/activate\n", "")


def prepared(block: Block, model_folder: ModelFolder) -> str:
    """A server's commands as they run here: this environment for ``.venv``, a tiny model for the reader's."""
    text = without_activation(block.text).replace(
        "make run", f"make --old-file={BIN.parent}/installed VENV={BIN.parent} run"
    )
    if not block.argument:
        return text
    text, count = re.subn(r"/models/[\w.-]+", str(model_folder(block.argument)), text)
    assert count == 1, f"{count} models in a block that names a family"
    return text


def start(text: str, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The process of the commands, in a session of its own, and the port that it will listen on."""
    port = unused_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", "set -e\n" + text],
            cwd=REPOSITORY,
            env=clean_environment(FORKLIFT_BIND=f"127.0.0.1:{port}"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process, port


def master_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """Gunicorn's master below the commands: the topmost Python that serves ``wsgi:app``."""
    root = psutil.Process(process.pid)
    for candidate in (root, *root.children(recursive=True)):
        command = candidate.cmdline()
        if "wsgi:app" in command and "python" in command[0]:
            return candidate
    raise AssertionError("no Gunicorn below the commands")


def end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of it."""
    if process.poll() is None:
        for member in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
            member.kill()
    process.wait(timeout=10)
