"""Values between two tags, strings bare and all else as JSON: what a value is tells the schema. Pure; any thread."""

from __future__ import annotations

from app.core.parsing.tool_calls.known_tools import is_text, quoted, typed
from app.core.parsing.tool_calls.scanner import Scanner, Steps


def read_bare_value(s: Scanner, types: frozenset[str], closing: str, *, is_on_lines: bool = False) -> Steps[None]:
    """Pass the value before ``closing`` on as an argument, which is read, too; a string in pieces.

    ``is_on_lines``: a line break at either end is no part of it.
    """
    closings = (f"\n{closing}", closing) if is_on_lines else (closing,)
    if is_on_lines and not (yield from s.is_next(*closings)):
        yield from s.accept("\n")
    if not is_text(types):
        s.add_arguments(typed((yield from s.until(*closings)), types))
        return
    s.add_arguments('"')
    while piece := (yield from s.piece_until(*closings)):
        s.add_arguments(quoted(piece)[1:-1])
    yield from s.require(*closings)
    s.add_arguments('"')
