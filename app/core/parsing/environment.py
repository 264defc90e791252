"""What the environment says for the settings: names without the prefix, values as they were meant.

Files of variables bring carriage returns and quotes along, which no shell takes away. Pure functions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from app.core.configuration.model_tables import one_line
from app.core.errors import SettingsError

PREFIX = "FORKLIFT_"
# Gunicorn's own name for the path that everything lies under.
SCRIPT_NAME = "SCRIPT_NAME"
# Texts in which blanks at the ends may be meant.
TEXTS = ("system_prompt",)
# Set and empty is a mistake here: the server would be open to all.
NEVER_EMPTY = ("api_keys",)
MAX_SHOWN_CHARS = 80


def read_environment(environ: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Values by the names of the settings. Raises ``SettingsError`` for a name that is not ``known``, and for a
    value that is blank; one that is empty is as good as none."""
    names = list(known)
    given: dict[str, str] = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX):
            name = variable[len(PREFIX) :].strip().lower()
            _require_known(name, names)
            given[name] = _clean(name, value)
    if (prefix := environ.get(SCRIPT_NAME, "").strip()) and "path_prefix" in names:
        given.setdefault("path_prefix", prefix)
    return {name: value for name, value in given.items() if value or name in NEVER_EMPTY}


def names_without_prefix(environ: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Variables that are called like a setting but for the prefix, where the setting itself is not given."""
    wanted = {name.upper() for name in known}
    return sorted(name for name in wanted if environ.get(name) and PREFIX + name not in environ)


def describe(error: ValidationError, fields: Mapping[str, Any]) -> str:
    """The first fault as one line with the setting's variable, and with the value where it is no secret."""
    line = one_line(error)
    place, has_place, text = line.partition(": ")
    name = place.split(".")[0]
    if not has_place or name not in fields:
        return line
    first = error.errors(include_url=False)[0]
    # Our own words name the value where that helps.
    is_told = first["type"] == "value_error" or fields[name].repr is False
    shown = "" if is_told else _shown(first.get("input"))
    return f"{PREFIX}{place.upper()}: {text}{shown}"


def _shown(value: object) -> str:
    if not isinstance(value, str):
        return ""
    hint = ": leave the quotes out" if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else ""
    text = repr(value if len(value) <= MAX_SHOWN_CHARS else value[:MAX_SHOWN_CHARS] + "...")
    return f", not {text}{hint}"


def _clean(name: str, value: str) -> str:
    text = value.strip("\r\n")
    stripped = text.strip()
    if text and not stripped:
        raise SettingsError(f"{PREFIX}{name.upper()}: is set and blank; unset it or give it a value")
    return text if name in TEXTS else stripped


def _require_known(name: str, known: list[str]) -> None:
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    shown = name.upper()[:MAX_SHOWN_CHARS]
    shown = shown if shown.isprintable() else repr(shown)[1:-1]
    raise SettingsError(f"unknown setting {PREFIX}{shown}; did you mean {PREFIX}{nearest.upper()}?")
