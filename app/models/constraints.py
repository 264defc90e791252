"""Structured output: masks the logits so that the completion matches a JSON schema or a regex.

The grammar work is llguidance's (MIT, no dependencies, 3 MB; it compiles lazily, where xgrammar
brings triton along and outlines-core builds the whole automaton first). Grammars are checked by
HTTP threads before a place is taken; matchers run on the inference thread.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import llguidance
import numpy as np
from llguidance.hf import from_tokenizer

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.jobs import Constraint

if TYPE_CHECKING:
    import torch
    from llguidance._lib import JsonCompileOptions
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


# Written as json.dumps writes it: where white space is free, a model can fill its whole budget with it.
JSON_FORM: JsonCompileOptions = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MAX_ERROR_LENGTH = 300


class Constraints:
    """Makes matchers for one tokenizer; what is costly about it is made at the first use."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, end_ids: frozenset[int]):
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = sorted(end_ids)
        self._lock = threading.Lock()
        self._guidance: llguidance.LLTokenizer | None = None

    def check(self, constraint: Constraint) -> None:
        """Raise ``InvalidParameterError`` where the schema or regex cannot be followed. Any thread."""
        error = self._error(constraint)
        if error:
            text = f"{constraint.kind}: {error.splitlines()[0][:MAX_ERROR_LENGTH]}"
            raise InvalidParameterError(text, param="response_format")

    def _error(self, constraint: Constraint) -> str:
        """Grammars are compiled lazily: some turn out to be too large only at their first mask."""
        tokenizer = self._prepared()
        try:
            grammar = _grammar(constraint)
        except ValueError as error:
            return str(error)
        invalid = llguidance.LLMatcher.validate_grammar(grammar, tokenizer)
        if invalid:
            return invalid
        matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        matcher.compute_bitmask()
        return matcher.get_error() if matcher.is_error() else ""

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the start of the completion."""
        return Matcher(llguidance.LLMatcher(self._prepared(), _grammar(constraint)), self._end_ids)

    def _prepared(self) -> llguidance.LLTokenizer:
        with self._lock:
            if self._guidance is None:
                if not self._tokenizer.is_fast or not self._end_ids:
                    raise UnsupportedParameterError(
                        "this model's tokenizer does not support structured output", param="response_format"
                    )
                self._guidance = from_tokenizer(self._tokenizer, n_vocab=self._vocab_size, eos_token=self._end_ids)
            return self._guidance


class Matcher:
    """Follows one sequence through its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher, end_ids: list[int]):
        self._matcher = matcher
        self._end_ids = end_ids

    @property
    def has_failed(self) -> bool:
        """Whether the grammar grew beyond llguidance's limits; no mask of it means anything any more."""
        return self._matcher.is_error()

    def accept(self, token: int) -> None:
        """``token`` was chosen; it is one that the last mask allowed."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)

    def mask(self, logits: torch.Tensor) -> None:
        """Set what the grammar forbids next in ``logits`` ``(vocab,)`` to -inf, in place."""
        import torch

        is_allowed = self._allowed(logits.shape[0])
        logits.masked_fill_(torch.from_numpy(~is_allowed).to(logits.device), -math.inf)

    def _allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        """Whether each token may come next ``(vocab,)``; once the grammar is at its end, the end tokens."""
        if self._matcher.is_stopped():
            is_allowed = np.zeros(vocab_size, dtype=np.bool_)
            is_allowed[self._end_ids] = True
            return is_allowed
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        # Tokens behind the mask's end, where there are any, come out as forbidden.
        return np.unpackbits(bits, count=vocab_size, bitorder="little").view(np.bool_)


def _grammar(constraint: Constraint) -> str:
    if constraint.kind == "regex":
        return llguidance.LLMatcher.grammar_from_regex(constraint.source)
    return llguidance.LLMatcher.grammar_from_json_schema(constraint.source, overrides=JSON_FORM)
