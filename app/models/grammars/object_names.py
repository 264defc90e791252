"""Keeps the names of an object apart: follows JSON as it is written, and tells which tokens would repeat a name.

A grammar without memory cannot: ``{"a": 1, "a": 2}`` is as good to it as two names. Strings are
written without ``\\u`` escapes here, so that equal names are equal bytes. Runs in a grammar's process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

QUOTE, BACKSLASH = ord('"'), ord("\\")
_OPENERS, _CLOSERS, _COMMA = b"{[", b"}]", ord(",")


class Writing:
    """Where a text of JSON stands: the names so far of every open object, and the string being written."""

    def __init__(self, *, is_trial: bool = False) -> None:
        # The names of an object; None for an array. A trial shares them with the text it is a trial of.
        self.open: list[set[bytes] | None] = []
        self._is_trial = is_trial
        self.name: bytearray | None = None
        self.is_escaped = False
        self.is_in_string = False
        self._expects_name = False

    def trial(self) -> Writing:
        """A copy that may go on by a token which is then not taken."""
        other = Writing(is_trial=True)
        other.open = list(self.open)
        other.name = None if self.name is None else bytearray(self.name)
        other.is_escaped, other.is_in_string = self.is_escaped, self.is_in_string
        other._expects_name = self._expects_name
        return other

    def write(self, text: bytes) -> bool:
        """Go on by ``text``; False where it repeats a name of the same object."""
        return all(map(self._write, text))

    def _write(self, byte: int) -> bool:
        if self.is_in_string:
            return self._write_in_string(byte)
        if byte == QUOTE:
            self.is_in_string = True
            self.name = bytearray() if self._expects_name else None
            self._expects_name = False
        elif byte in _OPENERS:
            self.open.append(set() if byte == _OPENERS[0] else None)
            self._expects_name = byte == _OPENERS[0]
        elif byte in _CLOSERS and self.open:
            self.open.pop()
            self._expects_name = False
        elif byte == _COMMA and self.open:
            self._expects_name = self.open[-1] is not None
        return True

    def _write_in_string(self, byte: int) -> bool:
        if byte == QUOTE and not self.is_escaped:
            self.is_in_string = False
            return self._end_name()
        self.is_escaped = byte == BACKSLASH and not self.is_escaped
        if self.name is not None:
            self.name.append(byte)
        return True

    def _end_name(self) -> bool:
        names = self.open[-1] if self.open else None
        if self.name is None or names is None:
            return True
        name, self.name = bytes(self.name), None
        is_new = name not in names
        if self._is_trial:
            self.open[-1] = names | {name}
        else:
            names.add(name)
        return is_new


class QuotedTokens:
    """The tokens of a vocabulary that hold a quotation mark: those that can end a name."""

    def __init__(self, tokens: Iterable[tuple[int, bytes]]):
        # One quotation mark and no backslash: by what stands before the mark.
        self.plain: dict[bytes, list[int]] = {}
        self.others: list[tuple[int, bytes]] = []
        for token, text in tokens:
            if text.count(QUOTE) == 1 and BACKSLASH not in text:
                self.plain.setdefault(text[: text.index(QUOTE)], []).append(token)
            elif QUOTE in text:
                self.others.append((token, text))


def repeating(writing: Writing, quoted: QuotedTokens, bits: bytes | bytearray) -> Iterator[int]:
    """The tokens among those that ``bits`` allows which would repeat a name."""
    if writing.name is not None and not writing.is_escaped and writing.open:
        start = bytes(writing.name)
        for name in writing.open[-1] or ():
            if name.startswith(start):
                yield from quoted.plain.get(name[len(start) :], ())
    elif writing.is_escaped:
        every = [(token, start + b'"') for start, tokens in quoted.plain.items() for token in tokens]
        yield from _simulated(writing, every, bits)
    yield from _simulated(writing, quoted.others, bits)


def _simulated(writing: Writing, tokens: Iterable[tuple[int, bytes]], bits: bytes | bytearray) -> Iterator[int]:
    for token, text in tokens:
        if bits[token >> 3] >> (token & 7) & 1 and not writing.trial().write(text):
            yield token
