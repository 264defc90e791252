"""Escaping of what would steer a terminal."""

from __future__ import annotations

import json

import pytest

from app.core.logs.printable import json_printable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J", "\\x9b2J"),
        ("a\r\nb\tc\x00\x7f", "a\\r\\nb\\tc\\x00\\x7f"),
        ("\u2028\u202e\u2066\ufeff", "\\u2028\\u202e\\u2066\\ufeff"),
        ("half \ud83d", "half \\ud83d"),
        ("größe 姓名 🙂", "größe 姓名 🙂"),
    ],
)
def test_what_steers_a_terminal_is_written_as_an_escape(text, shown):
    assert printable(text) == shown


def test_line_breaks_stay_where_they_are_wanted():
    assert printable("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb\\r\\x1b"


def test_a_line_of_json_means_the_same_after_escaping():
    value = {"a\u202e": "\x1b\x9b\u2028 größe"}
    line = json_printable(json.dumps(value, ensure_ascii=False))
    assert line.isascii() is False and json.loads(line) == value
    assert not any(character in line for character in "\x1b\x9b\u2028\u202e")
