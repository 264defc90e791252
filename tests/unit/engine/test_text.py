"""Incremental text equals the whole text, and nothing of a stop string goes out."""

from __future__ import annotations

import itertools
import re

import pytest
import re2
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.models.codegen.tokenization_codegen import CodeGenTokenizer

from app.engine.text.growing_patterns import GrowingPattern
from app.engine.text.text_filter import MAX_HELD, Detokenizer, TextFilter
from tests.tiny_models import SPECIAL, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
CODEGEN_PATTERNS = ("\n\n^#", "^'''", "\n\n\n")


def decode(ids: list[int]) -> str:
    return TOKENIZER.decode(ids, skip_special_tokens=True)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


def filtered(
    pieces: list[str], stop: tuple[str, ...] = (), patterns: tuple[str, ...] = (), **options: object
) -> tuple[str, bool]:
    text_filter = TextFilter(stop, patterns, **options)
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
    # Hypothesis tries strings of the source, names of special tokens among them: those have no text.
    assume(not any(sign in text + prompt for sign in SPECIAL))
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


ENDLESS = ("a.*x", r"\s*\n#", "(a|x#)+$", "(?s)a.x", r"[^a]x{2,}", r"\Bx", "(?i)A+x", r"\d*#")


@given(
    st.text("a#'\n x", max_size=40),
    st.lists(st.integers(0, 40), max_size=10),
    st.sampled_from([CODEGEN_PATTERNS, ("^#",), ("a$",), (r"x\b",), ("a.*x", "##"), ("a{2,3}",), ENDLESS])
    | st.lists(st.sampled_from(ENDLESS), min_size=1, max_size=3).map(tuple),
)
@settings(max_examples=800)
def test_text_is_cut_at_the_first_pattern_however_it_arrives(text, cuts, patterns):
    found = [re.search(pattern, text, re.MULTILINE) for pattern in patterns]
    at = min((match.start() for match in found if match), default=len(text))
    out, is_stopped = filtered(pieces_of(text, cuts), (), patterns)
    assert out == text[:at]
    assert is_stopped == any(found)


@given(st.text("pdrintef#' \n", max_size=20), st.lists(st.sampled_from(["print", "def", "\n", "#", " "]), max_size=12))
def test_codegen_also_cuts_before_the_second_print_and_def(start, parts):
    text = start + "".join(parts)
    expected = CodeGenTokenizer.truncate(None, text, ["^#", "\n\n\n"])
    out, _ = filtered(list(text), (), ("^#", "\n\n\n", "^print", "^def"), num_second=2)
    assert out == expected


def test_a_pattern_sees_whether_the_completion_begins_a_line():
    assert filtered(["'''a'''"], (), ("^'''",), before=" ") == ("'''a'''", False)
    assert filtered(["'''a'''"], (), ("^'''",), before="\n") == ("", True)
    assert filtered(["'''a'''"], (), ("^'''",)) == ("", True)
    assert filtered(["b c"], (), (r"\bb",), before="a") == ("b c", False)
    assert filtered(["print(1)\n", "print(2)\n", "print(3)"], (), ("^print",), before=" ", num_second=1) == (
        "print(1)\nprint(2)\n",
        True,
    )


def test_a_match_that_no_text_can_undo_ends_at_once():
    text_filter = TextFilter((), ("\n\\s*def .*:",))
    assert text_filter.push("x = 1\n  de") == ("x = 1", False)
    assert text_filter.push("f f(x):") == ("", False)
    assert text_filter.push(" ") == ("", True)


def test_text_that_begins_no_match_goes_out_at_once_whatever_the_pattern():
    text_filter = TextFilter((), ("#.*TODO", "\n{2,}"))
    assert text_filter.push("a = b\n") == ("a = b", False)
    assert text_filter.push("c # later") == ("\nc ", False)
    assert text_filter.push("\nd") == ("# later\nd", False)


def test_a_pattern_holds_back_a_bounded_piece_and_not_the_whole_answer():
    text_filter = TextFilter((), ("(?s)a.*Z", r"\pL+Z"))
    out = "".join(text_filter.push("a" * 10)[0] for _ in range(1000))
    assert len(out) == 10_000 - MAX_HELD
    assert len(text_filter._text) <= MAX_HELD + 11


@pytest.mark.parametrize("pattern", [r"(?:\w?){999}" * 20 + r"\.", r"(?:\w?){999}", "(", r"(a)\1"])
def test_patterns_that_are_large_or_invalid_are_refused(pattern):
    with pytest.raises(re2.error):
        GrowingPattern(pattern)


def test_patterns_that_take_too_long_are_noticed(monkeypatch):
    monkeypatch.setattr("app.engine.text.text_filter.FIRST_SECONDS", 0.0)
    monkeypatch.setattr("app.engine.text.text_filter.SECONDS_PER_TOKEN", -1.0)
    text_filter = TextFilter((), ("a",))
    text_filter.push("b")
    assert text_filter.is_too_slow
    assert not TextFilter(("a",), ()).is_too_slow


def test_of_two_stop_strings_the_one_that_is_complete_first_counts():
    assert filtered(list("xabcd"), ("abcd", "bc")) == ("xa", True)
    assert filtered(["xabcd"], ("abcd", "bc")) == ("xa", True)
    assert filtered(["xab"], ("ab", "b")) == ("x", True)


SIGNS = ("a", "<|im_end|>", "\n", "user", "<|im_start|>", "b")


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("<|im_start|>", ("a\nuser", True)),
        ("<|im_end|>\n", ("a", True)),
        ("a<|im_end|>", ("", True)),
        ("r<|im_start|>b", ("a\nuse", True)),
        ("<|im_end|>\nuser<|im_start|>", ("a", True)),
        ("\n<|im_end|>", ("a\nuserb", False)),
        ("<|im_end|><|im_start|>", ("a\nuserb", False)),
    ],
)
def test_stop_strings_may_name_special_tokens_alone_and_within(stop, expected):
    text_filter = TextFilter((stop,), ())
    text, is_stopped = "", False
    for sign in SIGNS:
        if not is_stopped:
            piece, is_stopped = (text_filter.push_special if "|" in sign else text_filter.push)(sign)
            text += piece
    text += "" if is_stopped else text_filter.finish()[0]
    assert (text, is_stopped) == expected


def test_a_stop_string_does_not_end_inside_the_name_of_a_special_token():
    text_filter = TextFilter(("im", "|", "a<|im"), ())
    assert text_filter.push("a") == ("", False)
    assert text_filter.push_special("<|im_start|>") == ("a", False)


def test_tokens_without_text_do_not_pile_up():
    detokenizer = Detokenizer(decode, TOKENIZER.encode("a"))
    special = TOKENIZER.convert_tokens_to_ids("<|im_start|>")
    assert {detokenizer.push(special) for _ in range(200)} == {""}
    assert len(detokenizer._window) < 20
    assert detokenizer.push(TOKENIZER.encode("b")[0]) == "b"


def test_text_that_cannot_become_a_stop_goes_out_at_once():
    text_filter = TextFilter(("<end>",), ())
    assert text_filter.push("hello <") == ("hello ", False)
    assert text_filter.push("en") == ("", False)
    assert text_filter.push("ter") == ("<enter", False)


@pytest.mark.parametrize(
    ("stop", "patterns", "text", "expected"),
    [
        (("b", "ab"), (), "xxaby", "ab"),
        (("end",), ("\n",), "the\nend", None),
        (("c",), ("d",), "abcd", "c"),
        (("c",), (), "ab", None),
    ],
)
def test_the_stop_string_that_cuts_is_told(stop, patterns, text, expected):
    text_filter = TextFilter(stop, patterns)
    for character in text:
        if text_filter.push(character)[1]:
            break
    else:
        text_filter.finish()
    assert text_filter.stopped_by == expected
