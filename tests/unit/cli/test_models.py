"""``forklift models`` tells what folders hold from headers alone, and what a server lists."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors import safe_open


@pytest.fixture(scope="module")
def shelf(model_folder, tmp_path_factory):
    """A directory with models of several kinds, one of them broken, and other things."""
    root = tmp_path_factory.mktemp("shelf")
    for family in ("qwen2", "bert", "sentence", "starcoder", "plain"):
        shutil.copytree(model_folder(family), root / "group" / family)
    broken = root / "broken"
    shutil.copytree(model_folder("gpt2"), broken)
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    (root / "notes").mkdir()
    return root


@pytest.fixture(scope="module")
def rows(shelf):
    from click.testing import CliRunner

    from app.cli.main import main

    result = CliRunner().invoke(main, ["models", str(shelf), "--json"])
    assert result.exit_code == 0, result.output
    return {row["name"]: row for row in json.loads(result.output)}


def test_every_model_folder_below_is_listed_and_nothing_else(rows):
    assert list(rows) == ["broken", "group/bert", "group/plain", "group/qwen2", "group/sentence", "group/starcoder"]


@pytest.mark.parametrize(("name", "task"), [("qwen2", "generate"), ("bert", "fill-mask"), ("sentence", "embeddings")])
def test_the_task_is_the_one_that_would_be_served(rows, name, task):
    assert rows[f"group/{name}"]["task"] == task


def test_parameters_and_bytes_are_those_of_the_weights(rows, shelf):
    with safe_open(shelf / "group" / "qwen2" / "model.safetensors", framework="pt") as file:
        sizes = [file.get_tensor(name).numel() for name in file.keys()]  # noqa: SIM118  not a mapping
    row = rows["group/qwen2"]
    assert (row["parameters"], row["bytes"], row["dtype"]) == (sum(sizes), 4 * sum(sizes), "F32")
    assert (row["architecture"], row["context_tokens"]) == ("Qwen2ForCausalLM", 1024)


@pytest.mark.parametrize(("name", "chat", "infill"), [("qwen2", True, True), ("plain", True, False)])
def test_chat_and_infilling_are_told_from_the_tokenizer(rows, name, chat, infill):
    assert (rows[f"group/{name}"]["chat"], rows[f"group/{name}"]["infill"]) == (chat, infill)


def test_a_broken_folder_is_listed_with_its_fault(rows):
    assert "pytorch_model.bin is a pickle file" in rows["broken"]["fault"]


def test_people_get_a_table(forklift, shelf):
    result = forklift("models", str(shelf / "group"))
    assert result.exit_code == 0
    assert "Qwen2" in result.output
    assert "fill-mask" in result.output


def test_a_server_without_capabilities_is_asked_for_names(forklift, double):
    double.missing = {"/v1/capabilities"}
    result = forklift("models", double.url, "--json")
    assert json.loads(result.output) == [{"name": "first"}, {"name": "second"}]


@pytest.mark.parametrize("place", ["nowhere", "http://127.0.0.1:1"])
def test_a_place_without_models_exits_with_1(forklift, tmp_path, place):
    assert forklift("models", place).exit_code == 1
    assert forklift("models", str(tmp_path)).exit_code == 1
