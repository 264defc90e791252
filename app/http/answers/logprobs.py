"""Log-probabilities as callers see them: which tokens belong to the text, and where they stand in it.

HTTP threads; pure functions of a vocabulary. A token that is not whole characters is written as
``bytes:\\xe2\\x82`` (OpenAI's form), since no text could hold it.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.work.job_events import TokenLogprob
from app.http.answers.native_types import ScoredToken, Token
from app.http.answers.openai_types import LegacyLogprobs, MessageToken, ScoredMessageToken
from app.http.requests.job_output import Piece

if TYPE_CHECKING:
    from app.models.tokens.vocabulary import Vocabulary

# JSON has no -inf.
LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class PlacedToken:
    """A scored token and the character at which its text begins; ``scored`` is None for the first of a prompt."""

    token: int
    offset: int
    scored: TokenLogprob | None


class TextOffsets:
    """Counts characters over tokens that may be parts of characters.

    ``drops_space``: the text lacks the space that its first token begins with, as sentencepiece's do.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        start: int = 0,
        *,
        drops_space: bool = False,
        shown: frozenset[int] = frozenset(),
    ):
        self._vocabulary = vocabulary
        self._shown = shown
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drops_space = drops_space
        self.end = start

    def push(self, token: int) -> int:
        """The offset at which ``token`` begins."""
        is_shown = token in self._shown
        start, raw = self.end, (self._vocabulary.token_bytes if is_shown else self._vocabulary.text_bytes)(token)
        if raw and self._drops_space:
            raw, self._drops_space = raw.removeprefix(b" "), False
        self.end += len(self._decoder.decode(raw))
        return start


class TokenTrack:
    """Follows one completion: a token comes out with its text, and not at all if a stop cut its text.

    ``can_cut`` says whether the request has anything that cuts; ``start`` is the length of the text
    in front of the completion, ``prompt_ids`` its tokens: where they are no text the completion is the first. ``shown``
    are special tokens that are text.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        can_cut: bool,
        start: int = 0,
        prompt_ids: Sequence[int] = (),
        shown: frozenset[int] = frozenset(),
    ):
        is_first = vocabulary.drops_space and not any(map(vocabulary.text_bytes, prompt_ids))
        self._offsets = TextOffsets(vocabulary, start, drops_space=is_first, shown=shown)
        self._can_cut = can_cut
        self._num_out = start
        self._held: deque[tuple[PlacedToken, int]] = deque()

    def push(self, piece: Piece) -> list[PlacedToken]:
        """The tokens whose text is out once ``piece`` is."""
        for scored in piece.logprobs:
            placed = PlacedToken(scored.token, self._offsets.push(scored.token), scored)
            self._held.append((placed, self._offsets.end))
        self._num_out += len(piece.text)
        is_whole = piece.finish_reason is not None and not self._can_cut
        out = []
        while self._held and (is_whole or self._held[0][1] <= self._num_out):
            out.append(self._held.popleft()[0])
        return out


def place_prompt(
    vocabulary: Vocabulary, prompt_ids: list[int], scored: Iterable[TokenLogprob], text: str
) -> list[PlacedToken]:
    """The prompt's tokens in its ``text``; the first has no log-probability, since nothing stands before it."""
    places = zip(prompt_ids, prompt_offsets(vocabulary, prompt_ids, text), [None, *scored], strict=True)
    return [PlacedToken(token, offset, score) for token, offset, score in places]


def prompt_offsets(vocabulary: Vocabulary, prompt_ids: Iterable[int], text: str) -> list[int]:
    """The character of ``text`` at which each token begins.

    A special token takes room where the text holds its name, and none where the tokenizer added it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    raw, at, num_characters, offsets = text.encode(), 0, 0, []
    for token in prompt_ids:
        offsets.append(num_characters)
        end = min(at + _length_in(vocabulary, token, raw, at), len(raw))
        num_characters += len(decoder.decode(raw[at:end]))
        at = end
    return offsets


def _length_in(vocabulary: Vocabulary, token: int, raw: bytes, at: int) -> int:
    """Bytes of ``raw`` that ``token`` stands for, from ``at`` on."""
    name = vocabulary.token_bytes(token)
    if raw.startswith(name, at):
        return len(name)
    if vocabulary.is_special(token):
        return 0
    # Sentencepiece thinks a space in front of a text.
    return len(name) - 1 if name.startswith(b" ") and raw.startswith(name[1:], at) else len(name)


def chat_entry(vocabulary: Vocabulary, scored: TokenLogprob) -> ScoredMessageToken:
    """One element of a chat choice's ``logprobs.content``."""
    top = [_entry(vocabulary, token, logprob) for token, logprob in scored.top]
    return {**_entry(vocabulary, scored.token, scored.logprob), "top_logprobs": top}


def native_entry(vocabulary: Vocabulary, scored: TokenLogprob) -> ScoredToken:
    """The same with token ids, for the native routes."""
    top: list[Token] = [{"id": token, **_entry(vocabulary, token, logprob)} for token, logprob in scored.top]
    return {"id": scored.token, **_entry(vocabulary, scored.token, scored.logprob), "top_logprobs": top}


def legacy_block(vocabulary: Vocabulary, placed: list[PlacedToken]) -> LegacyLogprobs:
    """A completion choice's ``logprobs``: four lists of the same length."""
    return {
        "text_offset": [one.offset for one in placed],
        "tokens": [token_text(vocabulary, one.token) for one in placed],
        "token_logprobs": [None if one.scored is None else _number(one.scored.logprob) for one in placed],
        "top_logprobs": [None if one.scored is None else _top(vocabulary, one.scored) for one in placed],
    }


def token_text(vocabulary: Vocabulary, token: int) -> str:
    """The text of a token, or its bytes where it is no text."""
    raw = vocabulary.token_bytes(token)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _top(vocabulary: Vocabulary, scored: TokenLogprob) -> dict[str, float]:
    """The best tokens, and the chosen one where it is none of them."""
    best = {token_text(vocabulary, token): _number(logprob) for token, logprob in scored.top}
    return {**best, token_text(vocabulary, scored.token): _number(scored.logprob)}


def _entry(vocabulary: Vocabulary, token: int, logprob: float) -> MessageToken:
    raw = list(vocabulary.token_bytes(token))
    return {"token": token_text(vocabulary, token), "logprob": _number(logprob), "bytes": raw}


def _number(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
