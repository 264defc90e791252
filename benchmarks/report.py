"""Prints a table for people and one JSON line for machines, with the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def environment() -> dict[str, str]:
    """What a figure depends on."""
    packages = {name: version(name) for name in ("torch", "transformers", "gunicorn", "flask")}
    return {"cpu": _cpu(), "cores": str(len(os.sched_getaffinity(0))), "python": platform.python_version(), **packages}


def show(title: str, rows: list[dict[str, Any]], **facts: Any) -> None:
    """Print ``rows`` (same keys in each) and then everything as one JSON line."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    Console(width=160).print(table)
    print(json.dumps({"benchmark": title, **facts, "environment": environment(), "rows": rows}))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
