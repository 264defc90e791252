"""Turns tokens into text that can be sent: whole characters, nothing of a stop string.

Inference thread; knows neither torch nor jobs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import re2

Decode = Callable[[list[int]], str]

REPLACEMENT = "\ufffd"
# Prompt tokens decoded in front of the completion, so that tokenizers that drop the first space of
# a text (sentencepiece) keep the completion's.
NUM_CONTEXT_TOKENS = 6
# A character has at most 4 bytes; more undecodable tokens than this are not the start of one.
MAX_PENDING_TOKENS = 12


class Detokenizer:
    """Text of a growing list of tokens, without half characters.

    Decodes a short window behind the text that is already out: what a token adds depends on its
    neighbours, in byte-level and in sentencepiece vocabularies alike.
    """

    def __init__(self, decode: Decode, prompt_ids: list[int]):
        self._decode = decode
        self._window = list(prompt_ids[-NUM_CONTEXT_TOKENS:])
        if decode(self._window).endswith(REPLACEMENT):
            self._window = []
        self._num_read = len(self._window)

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
        if len(text) <= len(before) or (text.endswith(REPLACEMENT) and not is_last):
            return ""
        self._window = self._window[self._num_read :]
        self._num_read = len(self._window)
        return text[len(before) :]


class TextFilter:
    """Cuts text at the first stop string or pattern, and holds back what may become one.

    The text that comes out, joined, is the same however the tokens cut it into pieces.
    """

    def __init__(self, stop: tuple[str, ...], patterns: tuple[str, ...]):
        self._stop = stop
        self._patterns = [compile_pattern(pattern) for pattern in patterns]
        self._reach = max((pattern_reach(pattern) for pattern in patterns), default=0.0)
        self._text = ""
        self._num_out = 0

    def push(self, text: str) -> tuple[str, bool]:
        """Text that can go out now, and whether the sequence has met a stop."""
        if not self._stop and not self._patterns:
            return text, False
        self._text += text
        return self._advance(is_last=False)

    def finish(self) -> tuple[str, bool]:
        """The rest of the text, at the end of the sequence."""
        if not self._stop and not self._patterns:
            return "", False
        return self._advance(is_last=True)

    def _advance(self, is_last: bool) -> tuple[str, bool]:
        at = min(self._find_stop(), self._find_pattern(is_last))
        if at < len(self._text):
            return self._take(at), True
        if is_last:
            return self._take(len(self._text)), False
        safe = min(len(self._text) - self._num_held_for_stop(), len(self._text) - self._reach)
        return self._take(int(max(safe, self._num_out))), False

    def _take(self, end: int) -> str:
        start, self._num_out = self._num_out, max(end, self._num_out)
        return self._text[start:end]

    def _find_stop(self) -> int:
        found = (self._text.find(stop, self._num_out) for stop in self._stop)
        return min((at for at in found if at >= 0), default=len(self._text))

    def _find_pattern(self, is_last: bool) -> int:
        """Where the first match begins, once no longer text could bring an earlier one."""
        matches = (pattern.search(self._text, self._num_out) for pattern in self._patterns)
        at = min((match.start() for match in matches if match), default=len(self._text))
        return at if is_last or at + self._reach <= len(self._text) else len(self._text)

    def _num_held_for_stop(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        pending = self._text[self._num_out :]
        for length in range(min(len(pending), max(map(len, self._stop), default=1) - 1), 0, -1):
            if any(stop.startswith(pending[-length:]) for stop in self._stop if len(stop) > length):
                return length
        return 0


@functools.lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> re2._Regexp:
    """``pattern`` in RE2's linear-time syntax, multi-line. Raises ``re2.error`` where it is invalid."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(f"(?m:{pattern})", options)


@functools.lru_cache(maxsize=256)
def pattern_reach(pattern: str) -> float:
    """Characters from the start of a match after which it can no longer change; inf if unbounded.

    RE2 does not tell, so the width comes from the standard library's parser, which never runs the
    pattern. One more character decides ``$`` and ``\\b``.
    """
    try:
        _, widest = re._parser.parse(pattern, re.MULTILINE).getwidth()  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError):
        return float("inf")
    return float("inf") if widest >= re._constants.MAXREPEAT else float(widest + 1)  # type: ignore[attr-defined]
