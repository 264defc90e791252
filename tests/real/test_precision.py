"""The floor of every precision on trained weights, over Python's own documentation; the table is printed."""

from __future__ import annotations

import pytest
import torch

from app.cli.streams import make_console
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.weights.quantization import quantize
from app.reports.precision import Text, precision_report
from app.reports.tables import precision_table

TEXTS = [
    "A cat sits on the mat.",
    "The kitten is lying on a rug.",
    "Stock prices fell sharply on Monday after the bank's report.",
    "def add(a, b): return a + b",
    "How do I reset my password?",
    "Instructions for changing a forgotten password.",
]


def measured(folder, documentation, names: list[str], num_tokens: int) -> dict[str, dict]:
    environ = {"FORKLIFT_MODEL": str(folder)}
    text = Text("pydoc_data.topics", documentation)
    report = precision_report(environ, "float32", names, text, num_tokens, 256, lambda _name, _share: None)
    make_console().print(precision_table(report))
    return {row["precision"]: row for row in report["rows"]}


def test_int8_keeps_what_the_model_says_in_less_memory_than_bfloat16(smollm2, documentation):
    rows = measured(smollm2, documentation, ["int8"], 4112)
    assert rows["int8"]["num_scored_tokens"] >= 4000
    assert rows["int8"]["mean_kl"] <= 0.01
    assert rows["int8"]["top1_agreement"] >= 0.97
    assert rows["int8"]["perplexity"] < 1.01 * rows["float32"]["perplexity"]


def test_bfloat16_and_int4_stay_within_their_bounds(smollm2, documentation):
    rows = measured(smollm2, documentation, ["bfloat16", "int8", "int4"], 512)
    assert rows["bfloat16"]["mean_kl"] <= 0.002
    assert rows["int4"]["mean_kl"] <= 0.05
    assert rows["int8"]["resident_bytes"] < rows["bfloat16"]["resident_bytes"]


@pytest.mark.parametrize(("kind", "least"), [("int8", 0.999), ("int4", 0.95)])
@torch.inference_mode()
def test_vectors_of_weights_that_no_file_has_rounded_before_keep_their_direction(minilm, kind, least):
    def vectors(quantization: str) -> torch.Tensor:
        settings = load_settings({"FORKLIFT_MODEL": str(minilm), "FORKLIFT_QUANTIZATION": quantization})
        checkpoint = load_checkpoint(settings, lambda _: None)
        if quantization != "none":
            quantize(checkpoint, quantization, 1)
        batch = checkpoint.tokenizer(TEXTS, padding=True, return_tensors="pt")
        hidden = checkpoint.model(**batch).last_hidden_state.double()
        mask = batch["attention_mask"][..., None]
        return (hidden * mask).sum(1) / mask.sum(1)

    assert torch.nn.functional.cosine_similarity(vectors("none"), vectors(kind)).min() > least
