"""Text of strangers as it may be shown: what would steer a terminal, reorder or break a line is written as an escape.

Pure functions; any process.
"""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, what turns the direction of text, line and paragraph separators, the byte order mark, and
# halves of surrogate pairs, which no encoding can hold.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """``text`` on one line that a terminal only shows; characters of ``keep`` (such as ``"\\n"``) stay as they are."""
    return _STEERING.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def json_printable(line: str) -> str:
    """A line of JSON with the same characters as JSON writes them; they stand only inside its strings."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def _escape(character: str) -> str:
    return repr(character)[1:-1] if ord(character) < 0x100 else f"\\u{ord(character):04x}"
