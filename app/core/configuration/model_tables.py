"""The file behind MODELS (DESIGN 1.5): one TOML table for each model. Read once, by the master.

Checks what the tables say of themselves; what they say for settings (``dtype``, ``max_batch_size``,
...) is left to the settings' own checks. Looks at no model: folders are the inference thread's.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import SettingsError
from app.core.system.small_files import read_small_file, why_unreadable
from app.core.tasks.task_table import Task

# Settings of the server that one model may have for itself.
OWN_SETTINGS = (
    "dtype",
    "quantization",
    "revision",
    "trust_remote_code",
    "chat_template",
    "adapters",
    "adapters_max_bytes",
    "tool_calls",
    "reasoning",
    "system_prompt",
    "max_context_tokens",
    "max_batch_size",
    "max_new_tokens",
    "default_new_tokens",
    "prefill_chunk_tokens",
    "prefix_cache",
    "prompt_lookup",
)
IDLE_UNLOAD_S = 300.0
MAX_NAME_LENGTH = 200
MAX_FILE_BYTES = 1_000_000
# What keys are called in the environment.
NAMES_ELSEWHERE = {"model": "path"}
# A table's head whose name TOML does not take bare.
_BARE_HEAD = re.compile(r"^\s*\[([^\[\]\"']+)\]\s*(?:#.*)?$")


class ModelTable(BaseModel):
    """One table. ``own_settings`` holds its values for the names of ``OWN_SETTINGS``, unchecked."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str = Field(min_length=1)
    task: Task | None = None
    load: Literal["resident", "on_demand"] = "resident"
    idle_unload_s: float = Field(IDLE_UNLOAD_S, ge=0, le=604_800, allow_inf_nan=False)
    own_settings: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _idle_means_on_demand(self) -> ModelTable:
        if self.load == "resident" and "idle_unload_s" in self.model_fields_set:
            raise ValueError('idle_unload_s: only with load = "on_demand"')
        return self


def read_tables(file: str) -> dict[str, ModelTable]:
    """Tables by name, in the file's order. Raises ``SettingsError`` with one line.

    A path that begins with a dot is meant from the folder of the file, and comes back so.
    """
    tables = _parse(file)
    if not tables:
        raise SettingsError(f"{file}: has no tables; each model is one, [name] with path = ...")
    _require_unlike(file, tables)
    return {name: _table(file, name, values) for name, values in tables.items()}


def _require_unlike(file: str, names: Iterable[str]) -> None:
    """Two names that differ by case alone are one to people, and to some file systems."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise SettingsError(f"{file}: [{other}] and [{name}] differ by case only; give one of them another name")


def _parse(file: str) -> dict[str, Any]:
    try:
        text = read_small_file(file, MAX_FILE_BYTES).decode("utf-8-sig")
        return tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"FORKLIFT_MODELS: cannot read {file}: {why_unreadable(file, error)}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"FORKLIFT_MODELS: {file} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        hint = _quoting_hint(text, str(error))
        raise SettingsError(f"FORKLIFT_MODELS: {file} is not valid TOML: {error}{hint}") from None
    except RecursionError:
        raise SettingsError(f"FORKLIFT_MODELS: {file} is nested too deeply") from None


def _quoting_hint(text: str, reason: str) -> str:
    """What to write where the fault is a name such as ``org/model`` that stands bare."""
    line = re.search(r"at line (\d+)", reason)
    head = _BARE_HEAD.match(text.splitlines()[int(line[1]) - 1]) if line else None
    return f'; quote the name: ["{head[1].strip()}"]' if head else ""


def _table(file: str, name: str, values: object) -> ModelTable:
    place = f"{file}: [{name}]"
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: {name} stands outside of a table; each model is one, [name] with path = ...")
    if not name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
        raise SettingsError(f"{file}: {name!r} cannot be the name of a model")
    for key, value in values.items():
        _require_known(place, name, key, value)
    own = {key: value for key, value in values.items() if key in OWN_SETTINGS}
    rest = {key: value for key, value in values.items() if key not in OWN_SETTINGS}
    if isinstance(path := rest.get("path"), str) and path.startswith("."):
        rest["path"] = str(Path(file).resolve().parent / path)
    try:
        return ModelTable.model_validate({**rest, "own_settings": own})
    except ValidationError as error:
        raise SettingsError(f"{place} {one_line(error)}") from None


def _require_known(place: str, name: str, key: str, value: object) -> None:
    known = [one for one in (*ModelTable.model_fields, *OWN_SETTINGS) if one != "own_settings"]
    if key in known:
        return
    if isinstance(value, dict):
        whole = f"{name}.{key}"
        raise SettingsError(f'{place} unknown key {key}, a table; for a model called {whole} quote it: ["{whole}"]')
    nearest = NAMES_ELSEWHERE.get(key) or difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    raise SettingsError(f"{place} unknown key {key}; did you mean {nearest}?")


def one_line(error: ValidationError) -> str:
    """The first fault: where, and what."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
