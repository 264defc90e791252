"""The processes of grammars (``python -m`` runs this file): one reads a vocabulary once, then forks for each grammar.

The first process has one thread, a tokenizer and no torch, so it may fork. It gets the fork's end of a
socket with each message on its control socket (whose descriptor is its argument), and ends when that closes;
its children die with it. A child compiles one grammar within limits of memory and processor time and then
makes its masks: whatever the compiler does, to its last resort (``abort``), ends this child and nothing else.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import llguidance

from app.core.system.parents import end_with
from app.models.grammars import grammar_messages as messages
from app.models.grammars.calls.lark_rules import regex
from app.models.grammars.object_names import QuotedTokens, Writing, repeating
from app.models.grammars.thought_skipping import ThoughtSkipper

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

READY = b"ready"
COMPILE_CPU_S = 3
# One mask takes at most some 20 ms within llguidance's own limits; a signal ends what does not keep to them.
MASK_CPU_S = 2
# The limit is moved on only so often: that takes as long as a simple mask.
LIMIT_EVERY_S = 0.5
MEMORY_BYTES = 1 << 28
NICENESS = 10
MAX_ERROR_CHARS = 300
UNFORCED = '%llguidance {"no_forcing": true}\n'
# Written as json.dumps writes it: where white space is free, a model can fill its whole budget with it. Without
# \u escapes every text has one spelling, so that names can be told apart.
JSON_FORM: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}


class Vocabulary:
    """The tokenizer as the compiler needs it, and the tokens that can end a name."""

    def __init__(self, head: bytes, tokenizer: str):
        options = json.loads(head)
        self.tokenizer = llguidance.LLTokenizer(tokenizer, n_vocab=options["vocab_size"], eos_token=options["end_ids"])
        special = set(options["special_ids"])
        ids = [token for token in range(self.tokenizer.vocab_size) if token not in special]
        self.quoted = QuotedTokens((token, self.text(token)) for token in ids)

    def text(self, token: int) -> bytes:
        return self.tokenizer.decode_bytes([token])


def serve() -> None:
    """Read the vocabulary from standard input; then fork for each message, until there are none."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    head, _, tokenizer = sys.stdin.buffer.read().partition(b"\n")
    try:
        vocabulary = Vocabulary(head, tokenizer.decode())
    except BaseException as error:  # A panic too: the worker is told why.
        control.send(f"{type(error).__name__}: {error}".encode()[:MAX_ERROR_CHARS])
        return
    control.send(READY)
    gc.freeze()
    while True:
        _, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not fds:
            return
        own = os.getpid()
        if os.fork() == 0:
            control.close()
            end_with(own)
            _run(socket.socket(fileno=fds[0]), vocabulary)
        os.close(fds[0])


def _run(end: socket.socket, vocabulary: Vocabulary) -> None:
    """One grammar's life; never returns."""
    with suppress(EOFError, OSError):
        end.send(str(os.getpid()).encode())
        source = messages.Source.unpacked(messages.receive_pieces(end))
        _limit_memory()
        outcome, text, matcher = _compiled(source, vocabulary)
        end.send(json.dumps([outcome, text]).encode())
        if matcher is not None:
            Masks(end, vocabulary, matcher, source).serve()
    os._exit(0)


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where memory runs out all the same, the kernel is to take this process and no other.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _limit_cpu(seconds: int) -> None:
    """SIGXCPU after so many seconds more; its default action ends the process."""
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used) + seconds, hard))


def _compiled(
    source: messages.Source, vocabulary: Vocabulary
) -> tuple[messages.Outcome, str, llguidance.LLMatcher | None]:
    """Compile on a thread of low priority: niceness is a thread's on Linux, and cannot be taken back."""
    found: list[tuple[messages.Outcome, str, llguidance.LLMatcher | None]] = []

    def run() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        found.append(_attempt(source, vocabulary))

    _limit_cpu(COMPILE_CPU_S)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def _attempt(
    source: messages.Source, vocabulary: Vocabulary
) -> tuple[messages.Outcome, str, llguidance.LLMatcher | None]:
    """Grammars are compiled lazily: some turn out to be too large only at their first mask."""
    try:
        matcher = llguidance.LLMatcher(vocabulary.tokenizer, _grammar(source), log_level=0)
        matcher.compute_bitmask()
    except MemoryError:
        return "costly", "out of memory", None
    except BaseException as error:
        return "invalid", str(error)[:MAX_ERROR_CHARS], None
    if matcher.is_error():
        is_costly = matcher.stop_reason() in ("ParserTooComplex", "LexerTooComplex")
        return "costly" if is_costly else "invalid", matcher.get_error()[:MAX_ERROR_CHARS], None
    if (place := _unmatched(source, vocabulary)) is not None:
        return "unsupported", f"{place}: no text that this model's calls can hold matches", None
    return "compiled", "", matcher


def _unmatched(source: messages.Source, vocabulary: Vocabulary) -> str | None:
    """The place of a terminal that no text matches: a grammar with one has no end where it is due."""
    terminals = "\n".join(line for line in source.text.splitlines() if line.startswith("T_"))
    for name, place in source.texts:
        text = f"%llguidance {{}}\nstart: {name}\n{terminals}\n"
        matcher = llguidance.LLMatcher(vocabulary.tokenizer, _lark(text), log_level=0)
        matcher.compute_bitmask()
        if matcher.is_error():
            return place
    return None


def _grammar(source: messages.Source) -> str:
    """What the compiler gets.

    Text that has no alternative it tokenizes by itself: a special token's name in it would be that token, which is not
    that text, and nothing could follow. So it is told to leave that where there are such names.
    """
    if source.spells_signs:
        return _unforced(source)
    if source.kind == "regex":
        return llguidance.LLMatcher.grammar_from_regex(source.text)
    if source.kind == "grammars":
        return source.text
    if source.kind != "json_schema":
        return _lark(source.text)
    return llguidance.LLMatcher.grammar_from_json_schema(source.text, overrides=JSON_FORM)


def _unforced(source: messages.Source) -> str:
    match source.kind:
        case "grammars":
            grammars = json.loads(source.text)["grammars"]
            for one in grammars:
                one["lark_grammar"] = UNFORCED + one["lark_grammar"]
            return json.dumps({"grammars": grammars})
        case "json_schema":
            schema = {**json.loads(source.text), "x-guidance": JSON_FORM}
            return _lark(f"{UNFORCED}start: %json {json.dumps(schema)}\n")
        case "regex":
            return _lark(f"{UNFORCED}start: {regex(source.text)}\n")
        case _:
            return _lark(UNFORCED + source.text)


def _lark(text: str) -> str:
    return llguidance.LLMatcher.grammar_from_lark(text)


class Masks:
    """Follows sequences through one compiled grammar, as a worker orders."""

    def __init__(
        self, end: socket.socket, vocabulary: Vocabulary, matcher: llguidance.LLMatcher, source: messages.Source
    ):
        self._end = end
        self._vocabulary = vocabulary
        self._first = matcher
        self._source = source
        self._matchers: dict[int, llguidance.LLMatcher] = {}
        self._writings: dict[int, tuple[ThoughtSkipper, Writing]] = {}

    def serve(self) -> None:
        """Until the worker closes its end. Masks are sent in the order in which they are asked for.

        Each mask touches as little as can be: between two of them the model empties the processor's caches, and with
        many grammars there is a process to be woken for each.
        """
        receive, send = self._end.recv, self._end.send
        used_s, limited_s = time.process_time(), -math.inf
        while data := receive(64):
            order, matcher, token = messages.unpack_order(data)
            if order == messages.DROP:
                self._matchers.pop(matcher, None)
                self._writings.pop(matcher, None)
                continue
            if used_s - limited_s > LIMIT_EVERY_S:
                _limit_cpu(MASK_CPU_S)
                limited_s = used_s
            try:
                state, may_end, bits = self._mask(matcher, self._followed(order, matcher, token))
            except BaseException:  # Also a panic, and memory that runs out.
                state, may_end, bits = messages.FAILED, False, b""
            before_s, used_s = used_s, time.process_time()
            cpu_us = min(int((used_s - before_s) * 1e6), 2**32 - 1)
            send(messages.pack_mask(matcher, state, may_end, cpu_us, bits))

    def _followed(self, order: int, matcher: int, token: int) -> llguidance.LLMatcher:
        """The matcher behind the token, or a new one."""
        if order == messages.START:
            if self._source.keeps_names_apart:
                self._writings[matcher] = ThoughtSkipper(self._source.reasoning), Writing()
            one = self._matchers[matcher] = self._first.deep_copy()
            return one
        one = self._matchers[matcher]
        if not one.is_stopped():
            one.consume_token(token)
            if (writing := self._writings.get(matcher)) is not None:
                skipper, text = writing
                text.write(skipper.push(self._vocabulary.text(token)))
        return one

    def _mask(self, matcher: int, one: llguidance.LLMatcher) -> tuple[int, bool, bytes]:
        if one.is_stopped():
            return (messages.FAILED, False, b"") if one.is_error() else (messages.ENDS, True, b"")
        bits = one.compute_bitmask()
        if one.is_error():
            return messages.FAILED, False, b""
        may_end = one.is_accepting()
        if (writing := self._writings.get(matcher)) is not None and writing[0].is_answer:
            bits = self._without_repeats(writing[1], bits)
        return messages.FOLLOWS, may_end, bits

    def _without_repeats(self, writing: Writing, bits: bytes) -> bytes:
        allowed = bytearray(bits)
        for token in repeating(writing, self._vocabulary.quoted, bits):
            allowed[token >> 3] &= ~(1 << (token & 7)) & 0xFF
        return bytes(allowed)


if __name__ == "__main__":
    serve()
