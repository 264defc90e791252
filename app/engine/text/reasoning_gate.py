"""Which part of a growing text is reasoning: what stops an answer does not look at it. Inference thread; pure state."""

from __future__ import annotations

from app.core.jobs import ReasoningSpan


class ReasoningGate:
    """Parts pieces of an answer; closed for good once the reasoning has ended, or none has begun."""

    def __init__(self, span: ReasoningSpan | None):
        self._opens = span.opens if span else ()
        self._closes = span.closes if span else ()
        self._is_open = bool(span and span.is_open)
        self._start = ""
        self._end = ""
        self.is_closed = span is None

    def part(self, text: str) -> tuple[str, str]:
        """The reasoning in ``text``, its closing tag included, and what follows it; the start may be held back."""
        if self.is_closed:
            return "", text
        if not self._is_open:
            text, self._start = self._start + text, ""
            begun = text.lstrip()
            if not begun.startswith(self._opens):
                if any(sign.startswith(begun) for sign in self._opens):
                    self._start = text
                    return "", ""
                self.is_closed = True
                return "", text
            self._is_open = True
        return self._inside(text)

    def rest(self) -> str:
        """What is still held back, at the end."""
        text, self._start = self._start, ""
        return text

    def _inside(self, text: str) -> tuple[str, str]:
        seen = self._end + text
        ends = [at + len(sign) for sign in self._closes if (at := seen.find(sign)) >= 0]
        if not ends:
            self._end = seen[-max(map(len, self._closes)) + 1 :]
            return text, ""
        self.is_closed = True
        cut = min(ends) - len(self._end)
        return text[:cut], text[cut:]
