"""Keeps the option tables of docs/cli.md as the program has them; a test checks that they are.

Run as ``python -m tools.cli_reference``. The page's prose is written by hand; what stands between
``<!-- options NAME -->`` and ``<!-- end -->`` is made here from the click tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from app.cli.main import main as program

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
BLOCK = re.compile(r"(<!-- options ([a-z -]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
# Its flags are the settings, which have a page of their own.
ELSEWHERE = {"serve": "Every setting is a flag: [Configuration](configuration.md).\n"}


def commands(group: click.Group = program, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def page(text: str) -> str:
    """``text`` with fresh tables. Raises ``ValueError`` for a command without one, or a table without a command."""
    known = dict(commands())
    named = [name for _, name, _ in BLOCK.findall(text)]
    if sorted(named) != sorted(known):
        raise ValueError(f"tables of {sorted(set(named) ^ set(known))} are missing, or are of no command")
    return BLOCK.sub(lambda match: match[1] + table(match[2], known[match[2]]) + match[3], text)


def table(name: str, command: click.Command) -> str:
    """Usage line and options of one command."""
    context = click.Context(command, info_name=f"forklift {name}")
    pieces = " ".join(command.collect_usage_pieces(context))
    usage = f"`forklift {name} {pieces}`\n"
    if name in ELSEWHERE:
        return usage + ELSEWHERE[name]
    options = [one for one in command.params if isinstance(one, click.Option)]
    if not options:
        return usage
    return usage + "\n| option | meaning |\n|---|---|\n" + "".join(row(one, context) for one in options)


def row(option: click.Option, context: click.Context) -> str:
    """As ``--help`` shows it, with the range and the default as words."""
    record = option.get_help_record(context)
    assert record is not None
    flags, meaning = (part.replace("|", "\\|") for part in record)
    return f"| `{flags}` | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
