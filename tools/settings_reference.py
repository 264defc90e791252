"""Writes docs/configuration.md from the settings; a test checks that the file is up to date.

Run as ``python -m tools.settings_reference``.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from app.core.settings import DEMO_MODEL, PREFIX, Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
HEAD = """# Configuration

Every setting is an environment variable with the prefix `FORKLIFT_`. A name that does not exist stops the start
and names the nearest one that does. This page is written from the code by `python -m tools.settings_reference`.

| name | values | default | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(row(name, field) for name, field in Settings.model_fields.items())


def row(name: str, field: FieldInfo) -> str:
    return f"| `{PREFIX}{name.upper()}` | {values(field)} | {default(field)} | {field.description} |\n"


def values(field: FieldInfo) -> str:
    """Allowed values: a list of words, or a type with its bounds."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    kinds = get_args(field.annotation)
    if any(get_origin(kind) is Literal for kind in kinds):
        return ", ".join(values(FieldInfo.from_annotation(kind)) for kind in kinds if kind is not NoneType)
    bounds = [f"{sign} {bound}" for sign, bound in _bounds(field)]
    return " ".join([_type_name(field), *bounds])


def _bounds(field: FieldInfo) -> list[tuple[str, object]]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return [(signs[name], getattr(limit, name)) for limit in field.metadata for name in signs if hasattr(limit, name)]


def _type_name(field: FieldInfo) -> str:
    names: dict[Any, str] = {bool: "true, false", int: "whole number", float: "number", tuple[str, ...]: "list"}
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType] or [field.annotation]
    return names.get(field.annotation) or names.get(kinds[0], "text")


def default(field: FieldInfo) -> str:
    value = field.default
    if value == str(DEMO_MODEL):
        return "the embedded demo model"
    if value in (None, "", ()):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
