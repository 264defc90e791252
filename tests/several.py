"""Files for MODELS, written from Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


def write_models_file(file: Path, tables: Mapping[str, Mapping[str, object]]) -> Path:
    """A TOML table for each entry; JSON's strings, numbers and booleans are TOML's too."""
    lines = []
    for name, values in tables.items():
        lines.append(f"[{json.dumps(name)}]")
        lines += [f"{key} = {json.dumps(str(one) if isinstance(one, Path) else one)}" for key, one in values.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
