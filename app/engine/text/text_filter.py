"""Turns tokens into text that can be sent: whole characters, nothing of a stop string.

Inference thread; knows neither torch nor jobs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from app.engine.text.growing_patterns import growing
from app.engine.text.stop_strings import StopStrings

Decode = Callable[[list[int]], str]

REPLACEMENT = "\ufffd"
# Prompt tokens decoded in front of the completion, so that tokenizers that drop the first space of
# a text (sentencepiece) keep the completion's.
NUM_CONTEXT_TOKENS = 6
# A character has at most 4 bytes; more undecodable tokens than this are not the start of one.
MAX_PENDING_TOKENS = 12
# A pattern's match that is longer than this may be missed: its beginning is not held back any further.
MAX_HELD = 2048
# What patterns may take: at first, and more for each token.
FIRST_SECONDS = 0.25
SECONDS_PER_TOKEN = 0.001


class Detokenizer:
    """Text of a growing list of tokens, without half characters.

    Decodes a short window behind the text that is already out: what a token adds depends on its
    neighbours, in byte-level and in sentencepiece vocabularies alike. ``before`` is the character in
    front of the completion, empty where there is none.
    """

    def __init__(self, decode: Decode, prompt_ids: list[int]):
        self._decode = decode
        self._window, text = self._context(prompt_ids)
        if text.endswith(REPLACEMENT):
            self._window = []
        self.before = text[-1:]
        self._num_read = len(self._window)

    def _context(self, prompt_ids: list[int]) -> tuple[list[int], str]:
        """The prompt's last tokens and their text, which is empty only where the whole prompt's is."""
        size = NUM_CONTEXT_TOKENS
        while not (text := self._decode(window := list(prompt_ids[-size:]))) and size < len(prompt_ids):
            size *= 8
        return window, text

    @property
    def is_whole(self) -> bool:
        """Whether the text of every token is out: none is the start of a character."""
        return self._num_read == len(self._window)

    def push(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is unfinished."""
        self._window.append(token)
        return self._read(is_last=len(self._window) - self._num_read > MAX_PENDING_TOKENS)

    def flush(self) -> str:
        """What is left, an unfinished character as U+FFFD."""
        return self._read(is_last=True)

    def _read(self, is_last: bool) -> str:
        before = self._decode(self._window[: self._num_read])
        text = self._decode(self._window)
        if text == before and not text.endswith(REPLACEMENT):
            # A token without a text, as special ones are: any number of them may follow each other.
            del self._window[self._num_read :]
            return ""
        if len(text) <= len(before) or (text.endswith(REPLACEMENT) and not is_last):
            return ""
        self._window = self._window[self._num_read :]
        self._num_read = len(self._window)
        return text[len(before) :]


class TextFilter:
    """Cuts text at the first stop string or pattern, and holds back what may become one.

    The text that comes out, joined, is the same however the tokens cut it into pieces. ``before`` is the character
    in front of the text, where there is one: a line may have begun there. The last of ``patterns``, ``num_second``
    of them, count from their second match on.
    """

    def __init__(self, stop: tuple[str, ...], patterns: tuple[str, ...], *, before: str = "", num_second: int = 0):
        self._stop = stop
        self._stops = StopStrings(stop)
        self._cuts = [PatternCut(pattern, at >= len(patterns) - num_second) for at, pattern in enumerate(patterns)]
        self._is_idle = not stop and not patterns
        # The stop string that has cut the text, if one has.
        self.stopped_by: str | None = None
        self._text = before
        self._num_out = len(before)
        # Characters of the completion in front of ``_text``; the one before the completion does not count.
        self._num_dropped = -len(before)
        self._spent_s = 0.0
        self._allowed_s = FIRST_SECONDS

    @property
    def is_too_slow(self) -> bool:
        """Whether the patterns have taken more time than a sequence may spend on them."""
        return self._spent_s > self._allowed_s

    def push(self, text: str) -> tuple[str, bool]:
        """Text that can go out now, and whether the sequence has met a stop."""
        if self._is_idle:
            return text, False
        self._text += text
        return self._advance(self._stops.read_text(text), is_last=False)

    def pass_by(self, text: str) -> str:
        """Text that stop strings do not look at, and what was held back before it. Not together with patterns."""
        if self._is_idle:
            return text
        held = self._take(len(self._text))
        self._stops = StopStrings(self._stop)
        self._text, self._num_out, self._num_dropped = "", 0, 0
        return held + text

    def push_special(self, name: str) -> tuple[str, bool]:
        """The same for a special token, which has no text but may be named by a stop string."""
        return ("", False) if self._is_idle else self._advance(self._stops.read_special(name), is_last=False)

    def finish(self) -> tuple[str, bool]:
        """The rest of the text, at the end of the sequence."""
        return ("", False) if self._is_idle else self._advance(None, is_last=True)

    def _advance(self, stop_at: int | None, *, is_last: bool) -> tuple[str, bool]:
        found, open_from = self._search(is_last)
        stops = [] if stop_at is None else [stop_at - self._num_dropped]
        if found is not None and (stops or found <= open_from):
            stops.append(found)
        if stops:
            if stop_at is not None and min(stops) == stop_at - self._num_dropped:
                self.stopped_by = self._stops.found
            return self._take(min(stops)), True
        return self._take(len(self._text) if is_last else min(open_from, self._first_held)), False

    @property
    def _first_held(self) -> int:
        return len(self._text) - self._stops.num_held

    def _search(self, is_last: bool) -> tuple[int | None, int]:
        """Where the first certain match begins, and from where on another may."""
        end = len(self._text)
        if not self._cuts:
            return None, end
        started_s = time.thread_time()
        text, start, base = self._text, self._num_out, self._num_dropped
        found = [cut.first(text, start, base, is_last=is_last) for cut in self._cuts]
        open_from = end if is_last else min(cut.live(text, start, base) for cut in self._cuts)
        self._spent_s += time.thread_time() - started_s
        self._allowed_s += SECONDS_PER_TOKEN
        return min((at for at in found if at is not None), default=None), max(open_from, end - MAX_HELD)

    def _take(self, end: int) -> str:
        """Text up to ``end`` goes out; one character stays, by which a line's start is known."""
        end = max(end, self._num_out)
        text = self._text[self._num_out : end]
        num_dropped = max(end - 1, 0)
        self._text, self._num_out = self._text[num_dropped:], end - num_dropped
        self._num_dropped += num_dropped
        return text


class PatternCut:
    """Where one pattern cuts: at its first match, or at its second. Positions are those of ``TextFilter``'s text."""

    def __init__(self, pattern: str, is_second: bool):
        self._pattern = growing(pattern)
        self._is_second = is_second
        # Position in the completion from which the match that counts is looked for.
        self._from = 0

    def first(self, text: str, start: int, base: int, *, is_last: bool) -> int | None:
        """Where it cuts for certain; None where it does not yet."""
        at = self._pattern.first(text, max(start, self._from - base), is_last=is_last)
        if at is None or not self._is_second:
            return at
        self._is_second, self._from = False, base + at + 1
        return self.first(text, start, base, is_last=is_last)

    def live(self, text: str, start: int, base: int) -> int:
        """From where on it may still match."""
        return self._pattern.live(text, max(start, self._from - base))
