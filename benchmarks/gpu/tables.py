"""Tables for people and one JSON line, from the results of the stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

HTTP_NAMES = {"forklift": "forklift, HTTP", "transformers": "transformers serve CB", "flask": "plain flask (S1)"}


def show_all(results: dict[str, Any], file: Path) -> None:
    """Print everything, and write the same to ``file``."""
    device = _figures(results, "device")
    names = list(dict.fromkeys(name.split()[1] for name in results if " " in name))
    tests = _figures(results, "tests", part="rows")
    with file.open("w") as copy:
        for out in (None, copy):
            if device:
                _print(out, "the device", [device])
            _print(out, "tests/gpu", [{**row, "failed": len(row["failed"])} for row in tests])
            for shape in names:
                _print(
                    out, f"{shape}: float32 greedy tokens against generate", _figures(results, "parity", shape, "rows")
                )
                _print(out, f"{shape}: the check at a load", load_rows(_figures(results, "load", shape)))
                _print(out, f"{shape}: speed", speed_rows(results, shape))
                _print(out, f"{shape}: ways to attend", _figures(results, "attention", shape, "rows"))
                _print(out, f"{shape}: weights of 8 bits, tokens/s", _figures(results, "quantized", shape, "rows"))
            _print(out, "stages", [_stage_row(name, found) for name, found in results.items()])
            print(json.dumps({"benchmark": "gpu", "stages": results}), file=out)


def load_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What serves, and each thing that the load told of what does not."""
    if not found:
        return []
    fields = ("engine", "runner", "graphs", "graph_failure", "dropped", "check_s", "load_s")
    rows = [{"what": name, "found": str(found.get(name))} for name in fields]
    for line in found["told"]:
        about = ", ".join(f"{key}={value}" for key, value in line.items() if key != "event")
        rows.append({"what": line["event"], "found": about[:110]})
    return rows


def speed_rows(results: dict[str, Any], shape: str) -> list[dict[str, Any]]:
    """The engine's ways in process, then the servers."""
    engine = _figures(results, "engine", shape)
    bandwidth = 1e9 * _figures(results, "device").get("copy_gb_per_s", 0.0)
    rows = [engine_row(row, engine, bandwidth) for row in engine.get("rows", ())]
    for kind, name in HTTP_NAMES.items():
        rows += http_rows(name, _figures(results, kind, shape))
    return rows


def engine_row(row: dict[str, Any], engine: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    """``% of limit``: of the steps that the measured bandwidth allows, weights and entries read once each."""
    limit = bandwidth / (engine["bytes_read_per_step"] + row["kv_bytes_per_step"]) * row["streams"]
    return {
        "way": row["way"],
        "streams": row["streams"],
        "tokens/s": row["tokens_per_s"],
        "% of limit": 100 * row["tokens_per_s"] / limit if limit else None,
        "long prompt ms": engine["ttft_ms"] if row["way"] == "eager" and row["streams"] == 1 else None,
        "of one pass": engine["ttft_ms"] / engine["forward_ms"]
        if row["way"] == "eager" and row["streams"] == 1
        else None,
        "GiB": engine.get("peak_gib"),
    }


def http_rows(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    loads = [(1, "one"), (found.get("streams"), "many")]
    long = found.get("long", {}).get("ttft_p50_ms")
    return [
        {
            "way": name,
            "streams": streams,
            "tokens/s": found[load]["tokens_per_s"],
            "% of limit": None,
            "long prompt ms": long if load == "one" else None,
            "of one pass": None,
            "GiB": found["memory_gib"],
        }
        for streams, load in loads
        if load in found
    ]


def _stage_row(name: str, found: dict[str, Any]) -> dict[str, Any]:
    error = next((line for line in reversed(found.get("error", ())) if line.strip()), "")
    row = {"stage": name, "status": found["status"], "seconds": found.get("seconds")}
    return row | {"error, or what is not shown here": error[:80] or found.get("not_here", "")}


def _figures(results: dict[str, Any], kind: str, shape: str = "", part: str = "") -> Any:
    found = results.get(f"{kind} {shape}".strip(), {}).get("figures", {})
    return found.get(part, []) if part else found


def _print(out: TextIO | None, title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console(file=out, width=140).print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
