"""Structured output: grammars that a completion follows, made from a JSON schema or a regex.

A schema is read first (``schemas``): what cannot be followed exactly, or would cost too much, is
refused with its place. Then it is compiled once, in a process of its own (``grammars``), and kept for
the same caller. The grammar work is llguidance's (MIT, no dependencies, 3 MB; it compiles lazily, where
xgrammar brings triton along and outlines-core builds the whole automaton first). HTTP threads; the
inference thread gets grammars that are compiled, and asks them for masks.
"""

from __future__ import annotations

import hashlib
import json
import threading
from copy import copy
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from app.core.errors import BadRequestError, UnsupportedParameterError
from app.core.system.native import guarded
from app.core.work.sampling_params import Constraint
from app.models.grammars.calls.call_grammars import CallRules, call_grammar
from app.models.grammars.calls.thoughts import behind_thoughts
from app.models.grammars.compile_queue import LOOK_S, CompileQueue
from app.models.grammars.grammar_cache import GrammarCache, GrammarKey
from app.models.grammars.grammar_messages import Source
from app.models.grammars.running_grammar import Grammar
from app.models.grammars.zygote import Patience, Zygote
from app.models.json_schemas.emission import plain_schema
from app.models.json_schemas.patterns import check_cost

MAX_COMPILING = 2
MAX_SOURCE_BYTES = 1_000_000


def _forever() -> None:
    """The patience of one who waits until it is done."""


class Constraints:
    """Compiles for one tokenizer; what is costly about it is made at the first use."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, end_ids: frozenset[int]):
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = sorted(end_ids)
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._cache = GrammarCache()
        self._queue = CompileQueue(MAX_COMPILING)
        self._compiling: dict[GrammarKey, threading.Event] = {}

    def compiled(self, constraint: Constraint, scope: str = "", patience: Patience = _forever) -> Grammar:
        """The grammar of ``constraint``; one that was compiled for the same ``scope`` is used again.

        Raises a ``BadRequestError`` where it cannot be followed, ``UnavailableError`` where no process
        can be had, and what ``patience`` raises, which is asked four times a second while this waits.
        """
        try:
            source = replace(self._source(constraint), given_in=constraint.given_in)
            key = scope, hashlib.sha256(source.packed()).digest()
            return self._cache.get(key) or self._made(key, source, patience)
        except BadRequestError as error:
            param = constraint.param
            message = error.message if constraint.kind == "json_schema" else error.message.removeprefix("#: ")
            raise type(error)(f"{param}: {message}", param=param) from None

    def close(self) -> None:
        """End every process."""
        self._cache.clear()
        with self._lock:
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    def _source(self, constraint: Constraint) -> Source:
        if len(constraint.source) > MAX_SOURCE_BYTES:
            raise UnsupportedParameterError(f"is longer than {MAX_SOURCE_BYTES} characters")
        if constraint.kind == "tool_calls":
            rules = CallRules(**json.loads(constraint.source))
            return self._with_signs(call_grammar(rules, self._special), json.dumps(rules.schemas, ensure_ascii=False))
        source = self._with_signs(_answer_source(constraint), constraint.source)
        return source if constraint.reasoning is None else behind_thoughts(source, constraint.reasoning, self._special)

    def _with_signs(self, source: Source, text: str) -> Source:
        """``source``, made of ``text``, with whether names of special tokens stand in that, escaped or not."""
        plain = text.replace("\\", "")
        names = {spelling.replace("\\", "") for name in self._special for spelling in (name, json.dumps(name)[1:-1])}
        return replace(source, spells_signs=any(name in plain for name in names))

    @property
    def _special(self) -> dict[str, int]:
        """The tokens that no text matches, by their names: for llguidance each added one in pointed brackets, too."""
        added = self._tokenizer.added_tokens_decoder.items()
        return {name: token for token, entry in added if _is_bracketed(name := str(entry.content)) or entry.special}

    def _made(self, key: GrammarKey, source: Source, patience: Patience) -> Grammar:
        """Compile, or wait for the thread that compiles the same."""
        while (grammar := self._cache.get(key)) is None:
            with self._lock:
                other = self._compiling.get(key)
                if other is None:
                    own = self._compiling[key] = threading.Event()
            if other is None:
                return self._compile(key, source, patience, own)
            while not other.wait(LOOK_S):
                patience()
        return grammar

    def _compile(self, key: GrammarKey, source: Source, patience: Patience, done: threading.Event) -> Grammar:
        try:
            with self._queue.taken(key[0], patience):
                grammar = self._prepared().compile(source, patience)
            self._cache.put(key, grammar)
            return grammar
        finally:
            with self._lock:
                del self._compiling[key]
            done.set()

    def _prepared(self) -> Zygote:
        with self._lock:
            if self._zygote is None:
                if not self._tokenizer.is_fast or not self._end_ids:
                    raise UnsupportedParameterError("this model's tokenizer does not support structured output")
                head = {
                    "vocab_size": self._vocab_size,
                    "end_ids": self._end_ids,
                    "special_ids": sorted(self._tokenizer.all_special_ids),
                }
                self._zygote = Zygote(head, _written(self._tokenizer))
            return self._zygote


def _answer_source(constraint: Constraint) -> Source:
    if constraint.kind == "regex":
        check_cost(constraint.source, "")
    if constraint.kind in ("regex", "lark"):
        return Source(constraint.kind, constraint.source)
    plain = plain_schema(json.loads(constraint.source))
    return Source("json_schema", plain.text, plain.has_free_names)


def _is_bracketed(name: str) -> bool:
    return name.startswith("<") and name.endswith(">")


def _written(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer as JSON, with the tokens that were added to it, without padding and truncation."""
    backend = copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    with guarded():
        return str(backend.to_str())
