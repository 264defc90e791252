"""``forklift report precision``: real processes, figures that another computation confirms, one line per fault."""

from __future__ import annotations

import json
import math
import struct

import jsonschema
import pytest
import torch
from click.testing import CliRunner

from app.cli.commands.report import command
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.quantization import quantize
from app.reports import measuring_process
from app.reports.measuring_process import ReportError, run_child
from app.reports.precision import PRECISIONS, default_text
from app.reports.variant import measure_variant

pytestmark = pytest.mark.slow

NUMBER = {"type": "number"}
SHARE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
AT_LEAST_0 = {"type": ["number", "null"], "minimum": 0}
ROW = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "precision": {"enum": list(PRECISIONS)},
        "perplexity": {"type": "number", "minimum": 1},
        "mean_kl": AT_LEAST_0,
        "max_kl": AT_LEAST_0,
        "top1_agreement": SHARE,
        "num_scored_tokens": {"type": "integer"},
        "load_s": NUMBER,
        "weights_bytes": {"type": "integer"},
        "resident_bytes": {"type": "integer"},
        "peak_bytes": {"type": "integer"},
        "gpu": {"type": ["object", "null"]},
        "tokens_per_s": {"type": "number", "exclusiveMinimum": 0},
        "batch_tokens_per_s": {"type": "number", "exclusiveMinimum": 0},
        "greedy_diverges_at": {"type": ["array", "null"], "items": {"type": ["integer", "null"]}},
    },
}
ROW["required"] = list(ROW["properties"])
SCHEMA = {
    "type": "object",
    "required": ["report", "version", "model", "baseline", "text", "window_tokens", "rows"],
    "properties": {
        "report": {"const": "precision"},
        "text": {"type": "object", "required": ["name", "chars", "sha256"]},
        "rows": {"type": "array", "items": ROW},
    },
}
WINDOW, TOKENS = 50, 240


def report(*arguments: object):
    return CliRunner().invoke(command, ["precision", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(model_folder, tmp_path_factory):
    """The report of a tiny model: its folder, what was printed, the figures and the picture."""
    folder = tmp_path_factory.mktemp("report")
    text = folder / "text.py"
    text.write_text("".join(f"def f{i}(x):\n    return x * {i}\n" for i in range(40)), encoding="utf-8")
    files = {"json": folder / "report.json", "plot": folder / "report.png"}
    options = [word for name, file in files.items() for word in (f"--{name}", file)]
    model = model_folder("qwen2")
    result = report(
        "--model", model, "--candidates", "bfloat16,int8", "--text", text,
        "--tokens", TOKENS, "--window", WINDOW, *options,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return model, text, result.output, json.loads(files["json"].read_text()), files["plot"]


def test_the_table_has_a_row_for_each_precision(made):
    output = made[2]
    for name in ("float32", "bfloat16", "int8", "perplexity", "KL mean"):
        assert name in output


def test_the_json_has_its_schema(made):
    figures = made[3]
    jsonschema.validate(figures, SCHEMA)
    assert [row["precision"] for row in figures["rows"]] == ["float32", "bfloat16", "int8"]
    assert [row["mean_kl"] is None for row in figures["rows"]] == [True, False, False]


def test_the_picture_is_a_png_with_a_size(made):
    data = made[4].read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 600
    assert height > 300


@torch.inference_mode()
def test_the_figures_are_those_of_full_logits_in_double_precision(made):
    folder, text, _, figures, _ = made

    def loaded(name):
        settings = load_settings({"FORKLIFT_MODEL": str(folder), **PRECISIONS[name]})
        checkpoint = load_checkpoint(settings, lambda _: None)
        fuse_layers(checkpoint)
        if name == "int8":
            quantize(checkpoint, name, 1)
        return checkpoint

    def logits_of(checkpoint):
        ids = checkpoint.tokenizer(text.read_text(), add_special_tokens=False)["input_ids"][:TOKENS]
        pieces = [torch.tensor([ids[i : i + WINDOW]]) for i in range(0, TOKENS, WINDOW)]
        logits = torch.cat([checkpoint.model(piece).logits[0, :-1] for piece in pieces])
        return logits.double(), torch.cat([piece[0, 1:] for piece in pieces])

    exact, targets = logits_of(loaded("float32"))
    p = torch.softmax(exact, -1)
    for row in figures["rows"]:
        logits, _ = logits_of(loaded(row["precision"]))
        nll = torch.nn.functional.cross_entropy(logits, targets)
        assert row["perplexity"] == pytest.approx(math.exp(nll), rel=1e-6)
        assert row["num_scored_tokens"] == len(targets)
        if row["mean_kl"] is not None:
            divergence = (p * (p / torch.softmax(logits, -1)).log()).sum(-1)
            assert row["mean_kl"] == pytest.approx(float(divergence.mean()), rel=1e-4)
            assert row["max_kl"] == pytest.approx(float(divergence.max()), rel=1e-4)
            agreement = (logits.argmax(-1) == exact.argmax(-1)).double().mean()
            assert row["top1_agreement"] == pytest.approx(float(agreement))


@torch.inference_mode()
def test_greedy_runs_are_compared_token_by_token(made):
    folder, text, _, figures, _ = made
    [row] = [row for row in figures["rows"] if row["precision"] == "bfloat16"]
    for number, at in enumerate(row["greedy_diverges_at"]):
        runs = []
        for name in ("float32", "bfloat16"):
            settings = load_settings({"FORKLIFT_MODEL": str(folder), **PRECISIONS[name]})
            checkpoint = load_checkpoint(settings, lambda _: None)
            fuse_layers(checkpoint)
            ids = checkpoint.tokenizer(text.read_text(), add_special_tokens=False)["input_ids"]
            prompt = torch.tensor([ids[number * WINDOW :][:32]])
            runs.append(checkpoint.model.generate(prompt, max_new_tokens=32, min_new_tokens=32)[0, 32:].tolist())
        expected = [a == b for a, b in zip(*runs, strict=True)]
        assert at == (expected.index(False) if False in expected else None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--candidates", "bfloat16,int3"], "'int3' is not one of float32, float16, bfloat16, int8, int4"),
        (["--candidates", "int8,int8"], "name each candidate once"),
        (["--candidates", ""], "name each candidate once"),
        (["--candidates", "float32"], "float32 is the baseline"),
        (["--baseline", "float64"], "float64"),
        (["--text", "/nowhere/text"], "/nowhere/text: No such file or directory"),
        (["--text", "/"], "/: Is a directory"),
        (["--tokens", "1"], "1 is not in the range"),
        (["--json", "/nowhere/report.json"], "/nowhere"),
    ],
    ids=str,
)
def test_wrong_usage_is_named_before_anything_is_loaded(arguments, words):
    result = report(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    file = tmp_path / "text"
    file.write_bytes(b"\xff\xfe\xff")
    result = report("--text", file)
    assert result.exit_code == 2
    assert "is not UTF-8 text" in result.output


def test_a_missing_model_is_one_line():
    result = report("--model", "/nowhere/model", "--candidates", "bfloat16")
    assert (result.exit_code, result.output) == (1, "forklift: the model folder /nowhere/model does not exist\n")


def measured(model, text):
    """What the measuring process does, in this one; that its errors are one line is seen above."""
    settings = load_settings({"FORKLIFT_MODEL": str(model)})
    options = {"num_tokens": TOKENS, "window_tokens": WINDOW, "logits": "/nowhere", "keep": True}
    with torch.no_grad():
        return measure_variant(settings, lambda _: None, text=text, **options)


def test_an_encoder_is_refused_by_name(model_folder):
    with pytest.raises(ReportError, match=r"^[^\n]* is a fill-mask model[^\n]*$"):
        measured(model_folder("bert"), "some text")


def test_a_text_of_one_token_is_refused(model_folder):
    with pytest.raises(ReportError, match=r"^the text has fewer than two tokens$"):
        measured(model_folder("qwen2"), "a")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo first >&2; echo last line >&2; exit 5", "ended with code 5: last line"),
        ("kill -9 $$", "ended by signal 9; 9 is what the kernel sends when memory runs out"),
        ("exit 0", "ended with code 0: no message"),
    ],
)
@pytest.mark.parametrize("has_read", [True, False])
def test_a_measurement_that_dies_is_one_line(monkeypatch, tmp_path, script, words, has_read):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{'cat > /dev/null' if has_read else ''}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(measuring_process.sys, "executable", str(program))
    with pytest.raises(ReportError, match=words):
        run_child({"text": "longer than what a pipe holds " * 10_000}, {"PATH": "/bin:/usr/bin"}, lambda _: None)


def test_the_default_text_is_long_enough_for_the_default_number_of_tokens():
    assert len(default_text().content) > 20 * 1024
