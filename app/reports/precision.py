"""The precision report: a baseline and candidates, one process after the other. Knows no torch.

Answers the question what half precision costs, for one model on one machine, in numbers.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import app
from app.core.settings import load_settings
from app.reports.measuring_process import run_child

# What a name asks of the settings.
PRECISIONS: dict[str, dict[str, str]] = {
    **{name: {"FORKLIFT_DTYPE": name, "FORKLIFT_QUANTIZATION": "none"} for name in ("float32", "float16", "bfloat16")},
    **{name: {"FORKLIFT_DTYPE": "auto", "FORKLIFT_QUANTIZATION": name} for name in ("int8", "int4", "file")},
}
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Text:
    """What is scored, and how a report names it."""

    name: str
    content: str

    def facts(self) -> dict[str, object]:
        """As a report shows it: two reports on one text have the same hash."""
        digest = hashlib.sha256(self.content.encode()).hexdigest()
        return {"name": self.name, "chars": len(self.content), "sha256": digest}


def default_text() -> Text:
    """This program's own sources, the modules of the core in order of their names: here on every machine."""
    folder = Path(app.__file__).parent / "core"
    parts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]
    return Text("the sources of app/core", "\n".join(parts))


def precision_report(
    environ: Mapping[str, str],
    baseline: str,
    candidates: Sequence[str],
    text: Text,
    num_tokens: int,
    window_tokens: int,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Figures of ``baseline`` and each of ``candidates`` for the model of ``environ``, as JSON has them.

    Raises ``ReportError`` and ``StartError``.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="forklift-report-") as folder:
        for name in (baseline, *candidates):
            request = {
                "measure": "variant",
                "text": text.content,
                "num_tokens": num_tokens,
                "window_tokens": window_tokens,
                "logits": str(Path(folder) / "logits"),
                "keep": not rows,
            }
            figures = run_child(request, {**environ, **PRECISIONS[name]}, partial(on_progress, name))
            rows.append({"precision": name, **figures})
    with_divergence(rows)
    model = load_settings(environ).model
    return {
        "report": "precision",
        "version": app.__version__,
        "model": model,
        "baseline": baseline,
        "text": text.facts(),
        "window_tokens": window_tokens,
        "rows": rows,
    }


def with_divergence(rows: list[dict[str, Any]]) -> None:
    """Put the index of the first token that differs from the baseline's in place of the greedy tokens.

    ``greedy_diverges_at`` has one entry per prompt, None where the runs are equal to their end.
    """
    runs = [row.pop("greedy") for row in rows]
    for row, found in zip(rows, runs, strict=True):
        pairs = zip(runs[0], found, strict=True)
        row["greedy_diverges_at"] = [first_difference(expected, tokens) for expected, tokens in pairs]
    rows[0]["greedy_diverges_at"] = None


def first_difference(expected: Sequence[int], found: Sequence[int]) -> int | None:
    """Index of the first token that differs, or None; both have the same length."""
    return next((i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b), None)
