"""``forklift report resources``: what was measured, what fits, and one line per fault."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from app.cli.commands.report import command
from app.reports.resources import fits
from app.reports.tables import size

pytestmark = pytest.mark.slow


def report(*arguments: object):
    return CliRunner().invoke(command, ["resources", *map(str, arguments)])


def measured(tmp_path, *arguments: object) -> tuple[str, dict]:
    file = tmp_path / "report.json"
    result = report(*arguments, "--json", file)
    assert result.exit_code == 0, result.output
    return result.output, json.loads(file.read_text())


def test_a_language_model_is_measured(model_folder, tmp_path):
    folder = model_folder("qwen2")
    output, figures = measured(tmp_path, "--model", folder)
    # 2 layers, keys and values, 2 heads of 16, float32
    assert figures["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 4
    assert figures["disk"]["weights_bytes"] == (folder / "model.safetensors").stat().st_size
    assert figures["disk"]["folder_bytes"] > figures["disk"]["weights_bytes"]
    ram = figures["ram"]
    assert 0 < ram["before_bytes"] < ram["at_rest_bytes"] <= ram["peak_bytes"]
    assert figures["weights_bytes"] > 0
    assert (figures["gpu"], figures["dtype"], figures["quantization"]) == (None, "float32", "none")
    assert figures["fits"][-1]["context_tokens"] == figures["longest_context_tokens"] == 1024
    assert "KV cache per token" in output
    assert "largest MAX_BATCH_SIZE" in output


def test_a_precision_can_be_asked_for(model_folder, tmp_path):
    figures = measured(tmp_path, "--model", model_folder("llama"), "--precision", "int4")[1]
    assert (figures["dtype"], figures["quantization"]) == ("bfloat16", "int4")
    assert figures["kv_bytes_per_token"] % 2 == 0


def test_an_encoder_has_no_kv_cache(model_folder, tmp_path):
    output, figures = measured(tmp_path, "--model", model_folder("bert"))
    assert (figures["task"], figures["kv_bytes_per_token"], figures["fits"]) == ("fill-mask", None, None)
    assert "KV cache" not in output


def test_a_missing_model_is_one_line():
    result = report("--model", "/nowhere/model")
    assert (result.exit_code, result.stderr) == (1, "forklift: the model folder /nowhere/model does not exist\n")


def test_a_wrong_setting_is_one_line(monkeypatch):
    monkeypatch.setenv("FORKLIFT_MAX_QUEUE", "-1")
    result = report()
    assert result.exit_code == 1
    assert result.output.startswith("forklift: FORKLIFT_MAX_QUEUE")


@pytest.mark.parametrize("free", [10_000_000, 3_000_000, 1_100_000, 400_000])
def test_what_fits_is_full_to_the_last_row(free):
    for row in fits(512, free, 2048):
        taken = row["context_tokens"] * 512
        assert row["max_batch_size"] * taken <= free
        assert (row["max_batch_size"] + 1) * taken > free or row["max_batch_size"] == 1024


def test_contexts_double_up_to_what_the_model_or_the_memory_allows():
    assert [row["context_tokens"] for row in fits(1, 10**9, 3000)] == [512, 1024, 2048, 3000]
    assert [row["context_tokens"] for row in fits(1000, 1_500_000, 4096)] == [512, 1024, 1500]
    assert fits(1000, 1_500_000, None)[-1] == {"context_tokens": 1500, "max_batch_size": 1}
    assert fits(1000, 300_000, 4096) == [{"context_tokens": 300, "max_batch_size": 1}]
    assert fits(1000, 900, 4096) == []


def test_sizes_are_read_at_a_glance():
    assert (size(3 * 2**20), size(3 * 2**30)) == ("3.0 MiB", "3.00 GiB")
