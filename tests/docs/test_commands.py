"""Every block of README and quick start has a class, and its commands do what they promise."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess

import pytest
import requests

from tests.docs import commands
from tests.docs.commands import PAGES, blocks_of, name_of, of_kind
from tests.service.conftest import LOAD_PATIENCE_S, wait_for
from tools.pages import REPOSITORY, Block, blocks

pytestmark = pytest.mark.slow

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_known_class_and_language(page):
    for block in blocks_of(page):
        assert block.language in commands.LANGUAGES, f"{page}:{block.line}: a block in {block.language!r}"
        assert block.kind in commands.KINDS, f"{page}:{block.line}: no class, or an unknown one: {block.mark}"


def test_a_block_without_a_class_would_be_noticed():
    (block,) = blocks("```sh\nrm -rf build\n```\n")
    assert block.kind not in commands.KINDS


def test_a_mark_that_belongs_to_no_block_is_refused():
    with pytest.raises(ValueError, match="no block follows"):
        blocks("<!-- block: run -->\n\n```sh\ntrue\n```\n")


@needs_curl
@pytest.mark.parametrize("pair", of_kind("run"), ids=name_of)
def test_the_commands_succeed(pair, demo):
    assert commands.run(pair[1], demo.port).strip()


def with_answers() -> list[tuple[str, Block, Block]]:
    found = []
    for page in PAGES:
        all_blocks = blocks_of(page)
        for number, block in enumerate(all_blocks):
            if block.kind == "answer":
                found.append((page, all_blocks[number - 1], block))
    return found


@needs_curl
@pytest.mark.parametrize(("page", "command", "answer"), with_answers(), ids=lambda part: getattr(part, "line", part))
def test_an_answer_on_the_page_has_the_fields_of_the_real_one(page, command, answer, demo):
    """Not the same text: bfloat16 on another processor may round another token to the top."""
    assert command.kind == "run", f"{page}:{answer.line}: an answer to nothing"
    real = commands.run(command, demo.port)
    if answer.language == "json":
        assert shape(json.loads(answer.text)) == shape(json.loads(real))
        return
    shown, seen = events(answer.text), events(real)
    assert shown[-1] == seen[-1] == "[DONE]"
    assert {shape_of_event(event) for event in shown[:-1]} <= {shape_of_event(event) for event in seen[:-1]}


def shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value]
    return "number" if isinstance(value, (int, float)) else type(value).__name__


def events(text: str) -> list[str]:
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


def shape_of_event(event: str) -> str:
    return json.dumps(shape(json.loads(event)))


@pytest.mark.parametrize("pair", of_kind("serve"), ids=name_of)
def test_the_server_becomes_ready_and_drains(pair, model_folder, tmp_path):
    log = tmp_path / "server.log"
    process, port = commands.start(commands.prepared(pair[1], model_folder), log)
    try:
        wait_for(lambda: is_ready_or_dead(process, port), f"readiness: {log.read_text()}", LOAD_PATIENCE_S)
        assert process.poll() is None, log.read_text()
        commands.master_of(process).send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        commands.end(process)


def is_ready_or_dead(process: subprocess.Popen[bytes], port: int) -> bool:
    if process.poll() is not None:
        return True
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.mark.parametrize("pair", of_kind("run-by"), ids=name_of)
def test_commands_that_run_elsewhere_stand_there(pair):
    _, block = pair
    elsewhere = (REPOSITORY / block.argument).read_text(encoding="utf-8").splitlines()
    for line in block.text.splitlines():
        assert line in elsewhere


@pytest.mark.parametrize("pair", of_kind("container"), ids=name_of)
def test_commands_for_containers_name_files_that_exist(pair):
    _, block = pair
    assert block.argument
    for file in block.argument.split():
        assert (REPOSITORY / file).is_file()
    done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in block.text.splitlines():
        assert re.match(r"(docker|kubectl|sudo systemctl) ", line), f"not a container's command: {line}"
