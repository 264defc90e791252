"""docs/cli.md has every command with its options as the program has them, and every check of the doctor."""

from __future__ import annotations

import click
import pytest

from app.cli.main import main
from tools.cli_reference import PAGE, commands, page


def test_the_tables_are_what_the_program_makes_of_them():
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run: python -m tools.cli_reference"


def test_a_command_without_a_table_is_noticed():
    text = PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="bench"):
        page(text.replace("<!-- options bench -->", ""))


def test_every_command_is_in_the_list_and_has_a_section():
    text = PAGE.read_text(encoding="utf-8")
    for name in main.commands:
        assert f"[`{name}`](#{name})" in text
        assert f"\n## {name}\n" in text


def test_commands_are_leaves_of_the_tree():
    assert not any(isinstance(command, click.Group) for _, command in commands())
