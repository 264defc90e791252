"""Incremental text equals the whole text, and nothing of a stop string goes out."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.text import Detokenizer, TextFilter, pattern_reach
from tests.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
CODEGEN_PATTERNS = ("\n\n^#", "^'''", "\n\n\n")


def decode(ids: list[int]) -> str:
    return TOKENIZER.decode(ids, skip_special_tokens=True)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def filtered(pieces: list[str], stop: tuple[str, ...] = (), patterns: tuple[str, ...] = ()) -> tuple[str, bool]:
    text_filter = TextFilter(stop, patterns)
    out = ""
    for piece in pieces:
        text, is_stopped = text_filter.push(piece)
        out += text
        if is_stopped:
            return out, True
    text, is_stopped = text_filter.finish()
    return out + text, is_stopped


@given(st.text(max_size=60), st.text(max_size=10))
@settings(max_examples=300)
def test_pushed_tokens_give_the_text_without_half_characters(text, prompt):
    detokenizer = Detokenizer(decode, TOKENIZER.encode(prompt))
    pieces = [detokenizer.push(token) for token in TOKENIZER.encode(text)]
    assert "".join(pieces) + detokenizer.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(st.lists(st.integers(7, 383), max_size=60))
@settings(max_examples=300)
def test_random_tokens_give_what_one_decode_gives(ids):
    detokenizer = Detokenizer(decode, [])
    streamed = "".join(detokenizer.push(token) for token in ids) + detokenizer.flush()
    assert streamed.replace("\ufffd", "") == decode(ids).replace("\ufffd", "")


def test_bytes_that_never_become_a_character_do_not_pile_up():
    lone_byte = TOKENIZER.convert_tokens_to_ids("Ģ")  # byte 0x80 in the byte-level alphabet
    detokenizer = Detokenizer(decode, [])
    pieces = [detokenizer.push(lone_byte) for _ in range(100)]
    assert sum(map(len, pieces)) > 50
    assert max(map(len, pieces)) < 20


@given(st.text("ab\n#'x", max_size=40), st.lists(st.integers(0, 40), max_size=10))
@settings(max_examples=500)
def test_text_is_cut_at_the_first_stop_string_however_it_arrives(text, cuts):
    stop = ("aba", "b\n", "xx#")
    at = min((text.find(s) for s in stop if s in text), default=len(text))
    assert filtered(pieces_of(text, cuts), stop) == (text[:at], at < len(text))


@given(
    st.text("a#'\n x", max_size=40),
    st.lists(st.integers(0, 40), max_size=10),
    st.sampled_from([CODEGEN_PATTERNS, ("^#",), ("a$",), (r"x\b",), ("a.*x", "##"), ("a{2,3}",)]),
)
@settings(max_examples=800)
def test_text_is_cut_at_the_first_pattern_however_it_arrives(text, cuts, patterns):
    found = [re.search(pattern, text, re.MULTILINE) for pattern in patterns]
    at = min((match.start() for match in found if match), default=len(text))
    out, is_stopped = filtered(pieces_of(text, cuts), (), patterns)
    assert out == text[:at]
    assert is_stopped == (at < len(text))


def test_text_that_cannot_become_a_stop_goes_out_at_once():
    text_filter = TextFilter(("<end>",), ())
    assert text_filter.push("hello <") == ("hello ", False)
    assert text_filter.push("en") == ("", False)
    assert text_filter.push("ter") == ("<enter", False)


@pytest.mark.parametrize(
    ("pattern", "reach"), [("\n\n^#", 4), ("^'''", 4), ("(a+)+$", float("inf")), ("a{2,5}", 6), (r"\pL", float("inf"))]
)
def test_the_reach_of_a_pattern_is_its_longest_match_and_one(pattern, reach):
    assert pattern_reach(pattern) == reach
