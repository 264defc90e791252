"""Two families behind a real Gunicorn: the source document's request, a replaced worker, a folder that is wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from transformers import pipeline

from tests.e2e.conftest import Forklift
from tests.families import reference
from tests.families.test_bad_folders import without_a_shard, without_tokenizer
from tests.service.conftest import StartServer, server_starter, wait_for

pytestmark = pytest.mark.slow

CODE = "#print hello world function"


@pytest.fixture
def start(tmp_path) -> Iterator[StartServer]:
    (tmp_path / "servers").mkdir()
    yield from server_starter(tmp_path / "servers", Forklift)


def replace_worker(server: Forklift) -> None:
    """Kill the worker; another takes its slot."""
    [before] = server.rows()
    os.kill(before["pid"], signal.SIGKILL)
    wait_for(lambda: [row["pid"] for row in server.rows()] not in ([before["pid"]], [0]), "another worker")
    server.wait_until_ready()


def test_codegen_completes_code_before_and_after_its_worker_is_killed(start, family_folder):
    server = start(model=family_folder("codegen"), default_new_tokens=20)
    _, tokenizer = reference.load(family_folder("codegen"))
    tokens = reference.greedy(family_folder("codegen"), tokenizer(CODE)["input_ids"], 20)
    expected = CODE + reference.text(family_folder("codegen"), tokens)
    assert server.post("/", json={"data": CODE}).json() == expected
    replace_worker(server)
    assert server.post("/", json={"data": CODE}).json() == expected


@pytest.mark.chaos
def test_bert_fills_a_mask_before_and_after_its_worker_is_killed(start, family_folder):
    server = start(model=family_folder("bert"))
    expected = [one["token"] for one in pipeline("fill-mask", model=str(family_folder("bert")))("test [MASK]")]
    for is_replaced in (False, True):
        if is_replaced:
            replace_worker(server)
        answer = server.post("/", data="test [MASK]", headers={"Content-Type": "text/plain"})
        assert [one["token"] for one in answer.json()] == expected


@pytest.mark.parametrize("defect", [without_tokenizer, without_a_shard], ids=lambda defect: defect.__name__)
def test_a_bad_folder_is_one_line_and_exit_code_3(start, copy_of, defect):
    folder = copy_of("codegen")
    expected = defect(folder)
    server = start(num_ready=0, model=folder)
    assert server.wait_for_exit() == 3
    [line] = [text for text in server.log().splitlines() if text.startswith("forklift: ")]
    assert expected in line
    assert "Traceback" not in server.log()
