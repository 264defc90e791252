"""The file behind MODELS (DESIGN 1.5): one TOML table for each model. Read once, by the master.

Checks what the tables say of themselves; what they say for settings (``dtype``, ``max_batch_size``,
...) is left to the settings' own checks. Looks at no model: folders are the inference thread's.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import SettingsError

Task = Literal["generate", "fill-mask", "embeddings"]
# Settings of the server that one model may have for itself.
OWN_SETTINGS = (
    "dtype",
    "quantization",
    "revision",
    "trust_remote_code",
    "chat_template",
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
    return {name: _table(file, name, values) for name, values in tables.items()}


def _parse(file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"FORKLIFT_MODELS: cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"FORKLIFT_MODELS: {file} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"FORKLIFT_MODELS: {file} is not valid TOML: {error}") from None


def _table(file: str, name: str, values: object) -> ModelTable:
    place = f"{file}: [{name}]"
    if not isinstance(values, dict):
        raise SettingsError(f"{file}: {name} stands outside of a table; each model is one, [name] with path = ...")
    if not name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
        raise SettingsError(f"{file}: {name!r} cannot be the name of a model")
    for key in values:
        _require_known(place, key)
    own = {key: value for key, value in values.items() if key in OWN_SETTINGS}
    rest = {key: value for key, value in values.items() if key not in OWN_SETTINGS}
    if isinstance(path := rest.get("path"), str) and path.startswith("."):
        rest["path"] = str(Path(file).resolve().parent / path)
    try:
        return ModelTable.model_validate({**rest, "own_settings": own})
    except ValidationError as error:
        raise SettingsError(f"{place} {one_line(error)}") from None


def _require_known(place: str, key: str) -> None:
    known = [name for name in (*ModelTable.model_fields, *OWN_SETTINGS) if name != "own_settings"]
    if key not in known:
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
        raise SettingsError(f"{place} unknown key {key}; did you mean {nearest}?")


def one_line(error: ValidationError) -> str:
    """The first fault: where, and what."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
