"""Clients that we did not write ask a running server for vectors, ranks, labels and texts, as their users write it.

Each is a program in ``loops``, as in ``test_client_loops``; what it prints is a row of a table of ``docs/use-with.md``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.clients.test_client_loops import ENVIRONMENT, KEY, LOOPS, Loop, require_success
from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter

pytestmark = pytest.mark.clients

# The first one is what text-generation's clients ask.
MODELS = {
    "texts": "llama",
    "vectors": "sentence",
    "ranks": "bert-rerank",
    "labels": "bert-classify",
    "translations": "t5",
}
TASK_LOOPS = [
    Loop("cohere_rerank", "cohere"),
    # Those with a folder of their own need other versions of what they share with the rest.
    Loop("tgi_generation", "text_generation", "text-generation"),
    Loop("hub_inference", "huggingface_hub"),
    Loop("langchain_vectors", "langchain_openai"),
    Loop("langchain_rerank", "langchain_cohere", "cohere-5"),
    Loop("llama_index_vectors", "llama_index.embeddings.openai", "llama-index"),
    Loop("llama_index_chat", "llama_index.llms.openai_like", "llama-index"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forklift]:
    """One worker with a model for each task."""
    from tests.tiny_models import save_tiny_model  # torch, for this marker alone

    folder = tmp_path_factory.mktemp("tasks")
    tables = [f'["{name}"]\npath = "{save_tiny_model(family, folder / name)}"\n' for name, family in MODELS.items()]
    (folder / "models.toml").write_text("\n".join(tables), encoding="utf-8")
    starter = server_starter(folder, Forklift)
    yield next(starter)(models=folder / "models.toml", api_keys=KEY)
    next(starter, None)


@pytest.mark.parametrize("loop", TASK_LOOPS, ids=lambda loop: loop.name)
def test_a_client_gets_what_the_routes_say(server, loop):
    python = ENVIRONMENT / "bin" / "python"
    environ = {**os.environ, "PYTHONPATH": str(ENVIRONMENT / loop.folder) if loop.folder else ""}
    if not python.exists() or subprocess.run([python, "-c", f"import {loop.needs}"], env=environ).returncode:
        pytest.skip(f"{loop.needs} is not in .venv-clients, which `make test-clients` makes")
    require_success([python, LOOPS / f"{loop.name}.py"], server, environ)
