"""Clients that we did not write complete a loop of two tool calls, whole and streamed, against a running server.

Each is a program in ``loops``, run by the environment that ``make test-clients`` makes; what it prints is the table of
``docs/use-with.md``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter

pytestmark = pytest.mark.clients

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = REPOSITORY / ".venv-clients"
LOOPS = Path(__file__).parent / "loops"
KEY, MODEL = "sesame", "calling"
PATIENCE_S = 300


@dataclass(frozen=True)
class Loop:
    """A program, the module without which it cannot run, and a folder with other versions that it needs."""

    name: str
    needs: str
    folder: str = ""


PYTHON_LOOPS = [
    Loop("openai_chat", "openai"),
    Loop("openai_responses", "openai"),
    Loop("anthropic_messages", "anthropic"),
    Loop("openai_agents", "agents"),
    Loop("langchain_tools", "langchain_openai"),
    # Version 2.38 makes objects of a type that anthropic 2 has as a union.
    Loop("pydantic_ai_agent", "pydantic_ai", "anthropic-1"),
    Loop("instructor_extraction", "instructor"),
    Loop("litellm_completion", "litellm"),
    Loop("llm_chain", "llm"),
    Loop("smolagents_model", "smolagents"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forklift]:
    """One worker with the model that calls."""
    from tests.clients.calling_model import save_calling_model  # torch, for this marker alone

    folder = tmp_path_factory.mktemp("clients")
    model = save_calling_model(folder / MODEL)
    starter = server_starter(folder, Forklift)
    yield next(starter)(model=model, model_name=MODEL, api_keys=KEY, max_batch_size=2)
    next(starter, None)


@pytest.mark.parametrize("loop", PYTHON_LOOPS, ids=lambda loop: loop.name)
def test_a_python_client_completes_its_loop(server, loop):
    python = ENVIRONMENT / "bin" / "python"
    environ = {**os.environ, "PYTHONPATH": str(ENVIRONMENT / loop.folder) if loop.folder else ""}
    if not python.exists() or subprocess.run([python, "-c", f"import {loop.needs}"], env=environ).returncode:
        pytest.skip(f"{loop.needs} is not in .venv-clients, which `make test-clients` makes")
    require_success([python, LOOPS / f"{loop.name}.py"], server, environ)


def test_vercels_client_completes_its_loop(server):
    folder = ENVIRONMENT / "node"
    node = shutil.which("node")
    if node is None or not (folder / "node_modules" / "ai").exists():
        pytest.skip("node, or Vercel's AI SDK, is not there: `make test-clients` installs it with npm")
    shutil.copy(LOOPS / "vercel_ai.mjs", folder)
    require_success([node, folder / "vercel_ai.mjs"], server, dict(os.environ))


def require_success(program: list[str | Path], server: Forklift, environ: dict[str, str]) -> None:
    """It ends well and says which client, of which version, did so on which routes."""
    ran = subprocess.run(
        [*program, server.url, KEY, MODEL], env=environ, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert told and all(one["routes"] for one in told)
    for one in told:
        print(f"| {one['client']} | {one['version']} | {', '.join(one['routes'])} |")
