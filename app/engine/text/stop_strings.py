"""Stop strings over a text that grows: each character is looked at once, however long the answer is.

Special tokens have no text in an answer, but a stop string may name them: they are read as one sign each. Inference
thread; knows neither torch nor jobs.
"""

from __future__ import annotations

import functools
from collections import deque


class StopString:
    """How much of one stop string the text ends with (Knuth, Morris and Pratt)."""

    def __init__(self, stop: str):
        self.text = stop
        self._borders = _borders(stop)
        self.num_matched = 0

    @property
    def length(self) -> int:
        return len(self.text)

    def read(self, sign: str) -> bool:
        """Read a character, or the name of a special token; whether the stop string is complete."""
        at = self.num_matched
        while not self.text.startswith(sign, at):
            if at == 0:
                self.num_matched = 0
                return False
            at = self._borders[at]
        self.num_matched = at + len(sign)
        return self.num_matched == len(self.text)


class StopStrings:
    """All stop strings of a sequence. The one that is complete first counts; of several, the longest."""

    def __init__(self, stops: tuple[str, ...]):
        self._stops = [StopString(stop) for stop in stops]
        self._longest = max(map(len, stops), default=0)
        # The one that was complete last.
        self.found: str | None = None
        self._num_read = 0
        # Special tokens: how many characters of text stand before each, and the length of its name.
        self._special: deque[tuple[int, int]] = deque()

    def read_text(self, text: str) -> int | None:
        """Where in the whole text the first complete stop string begins; None where there is none in ``text``."""
        if not self._stops:
            self._num_read += len(text)
            return None
        for character in text:
            self._num_read += 1
            if (start := self._read(character)) is not None:
                return start
        return None

    def read_special(self, name: str) -> int | None:
        """The same for a special token."""
        self._special.append((self._num_read, len(name)))
        while self._special[0][0] < self._num_read - self._longest:
            self._special.popleft()
        return self._read(name)

    @property
    def num_held(self) -> int:
        """Characters at the text's end that may belong to a stop string."""
        return self._num_read - self._start_of(max((stop.num_matched for stop in self._stops), default=0))

    def _read(self, sign: str) -> int | None:
        complete = [stop for stop in self._stops if stop.read(sign)]
        if not complete:
            return None
        longest = max(complete, key=lambda stop: stop.length)
        self.found = longest.text
        return self._start_of(longest.length)

    def _start_of(self, length: int) -> int:
        """Where in the text the last ``length`` characters begin, names of special tokens among them."""
        at = self._num_read
        for position, size in reversed(self._special):
            if length <= at - position:
                break
            length -= at - position
            at = position
            if length <= size:
                return at
            length -= size
        return at - length


@functools.lru_cache(maxsize=1024)
def _borders(stop: str) -> tuple[int, ...]:
    """For each number of matched characters, the longest shorter beginning that they also end with."""
    borders = [0, 0]
    at = 0
    for character in stop[1:]:
        while at and stop[at] != character:
            at = borders[at]
        at += stop[at] == character
        borders.append(at)
    return tuple(borders)
