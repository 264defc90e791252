"""What of a text stands behind its reasoning: names of a JSON answer are kept apart from there on.

A grammar holds the text to this form. Runs in a grammar's process.
"""

from __future__ import annotations

from app.core.work.sampling_params import ReasoningSpan


class ThoughtSkipper:
    """Takes the bytes of an answer as they come and gives those behind the reasoning."""

    def __init__(self, span: ReasoningSpan | None):
        self.is_answer = span is None
        self._is_open = span is not None and span.is_open
        self._opens = _encoded(span.opens if span else ())
        self._closes = _encoded(span.closes if span else ())
        self._answer = (span.answer if span else "").encode()
        self._text = b""

    def push(self, text: bytes) -> bytes:
        """What of ``text`` belongs to the answer."""
        if self.is_answer:
            return text
        self._text += text
        while self._step():
            pass
        if not self.is_answer:
            return b""
        rest, self._text = self._text, b""
        return rest

    def _step(self) -> bool:
        """Read a sign; whether there may be another."""
        if self._is_open:
            ends = [at + len(sign) for sign in self._closes if (at := self._text.find(sign)) >= 0]
            if not ends:
                return False
            self._text, self._is_open = self._text[min(ends) :], False
            return True
        begun = self._text.lstrip()
        for sign in self._opens:
            if begun.startswith(sign):
                self._text, self._is_open = begun[len(sign) :], True
                return True
        signs = (*self._opens, self._answer) if self._answer else self._opens
        if begun and self._answer and begun.startswith(self._answer):
            self._text, self.is_answer = begun[len(self._answer) :], True
        elif begun and not any(sign.startswith(begun) for sign in signs):
            self._text, self.is_answer = begun, True
        return False


def _encoded(signs: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(sign.encode() for sign in signs)
