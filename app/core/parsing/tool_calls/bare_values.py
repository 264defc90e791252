"""Values between two tags, strings bare and all else as JSON: what a value is tells the schema. Pure; any thread."""

from __future__ import annotations

from app.core.parsing.tool_calls.json_text import collected, read_value, whole
from app.core.parsing.tool_calls.known_tools import is_text, quoted, typed
from app.core.parsing.tool_calls.python_calls import python_whole
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

# What JSON begins with that may hold the closing tag in a string, and the type of each.
_STRUCTURED = {"{": "object", "[": "array", '"': ""}


def read_bare_value(s: Scanner, types: frozenset[str], closing: str, *, is_on_lines: bool = False) -> Steps[None]:
    """Pass the value before ``closing`` on as an argument, which is read, too; a string in pieces.

    ``is_on_lines``: a line break at either end is no part of it.
    """
    closings = (f"\n{closing}", closing) if is_on_lines else (closing,)
    if is_on_lines and not (yield from s.is_next(*closings)):
        yield from s.accept("\n")
    if not is_text(types):
        source = yield from _read_structured(s, types, closing)
        s.add_arguments(_as_json((yield from s.until(*closings)), types) if source is None else source)
        return
    s.add_arguments('"')
    while piece := (yield from s.piece_until(*closings)):
        s.add_arguments(quoted(piece)[1:-1])
    yield from s.require(*closings)
    s.add_arguments('"')


def _as_json(text: str, types: frozenset[str]) -> str:
    """A bare value of one of ``types``; where that can be no string, Python's spelling of it is read, too."""
    if types and "string" not in types and whole(text) is None and (written := python_whole(text)) is not None:
        return written
    return typed(text, types)


def _read_structured(s: Scanner, types: frozenset[str], closing: str) -> Steps[str | None]:
    """An object or array of a type that may stand here, and ``closing``, which its strings may hold.

    Where no type is known, a string in quotation marks, too. None, and nothing read, where there is none.
    """
    start = s.at
    yield from s.skip_space()
    kind = _STRUCTURED.get((yield from s.peek()))
    if kind is None or (types and kind not in types):
        s.at = start
        return None
    try:
        source = yield from collected(s, read_value)
        yield from s.skip_space()
        yield from s.require(closing)
    except EndedError:
        raise
    except MalformedError:
        s.at = start
        return None
    return source
