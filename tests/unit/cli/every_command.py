"""Each command once, with arguments that let it end: for tests that try all of them. Knows no test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.core.settings import DEMO_MODEL

DEMO = DEMO_MODEL


def commands(url: str) -> dict[str, list[str]]:
    """Those that ask a server."""
    return {
        "complete": ["complete", "x", "--url", url],
        "chat": ["chat", "--url", url],
        "classify": ["text", "classify", "x", "--url", url],
        "zero-shot": ["text", "zero-shot", "x", "a", "b", "--url", url],
        "rerank": ["text", "rerank", "x", "a", "b", "--url", url],
        "entities": ["text", "entities", "x", "--url", url],
        "answer": ["text", "answer", "x", "a", "--url", url],
        "models": ["models", url],
        "top": ["top", "--once", "--interval", "0.1", "--url", url],
        "doctor": ["doctor", "--url", url],
        "bench": ["bench", url, "-n", "2", "-c", "1", "--new-tokens", "2", "--timeout", "20"],
    }


def others(folder: Path) -> dict[str, list[str]]:
    """Those that ask nobody."""
    return {
        "doctor here": ["doctor"],
        "models here": ["models", str(DEMO)],
        "report": ["report", "resources", "--model", str(DEMO)],
        "pack": ["pack", "--model", str(DEMO), "--no-wheels", "--output", str(folder / "kit")],
        "verify": ["pack", "--verify", str(folder / "none")],
        "serve": ["serve", "--max-queue", "-1"],
        "help": ["--help"],
    }


def require_quiet_end(code: int, errors: str, allowed: tuple[int, ...] = (0, 1)) -> None:
    assert code in allowed, errors
    assert "Traceback" not in errors and "Exception ignored" not in errors
    assert len([line for line in errors.splitlines() if line.startswith("forklift")]) <= 1


def behave(double: Any, name: str) -> Any:
    double.behave = "well" if name == "bench" else "native"
    return double
