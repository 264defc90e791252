"""``forklift chat``: a conversation in the terminal, answers streamed as they come."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from app.cli.commands.asking.complete import stats_line
from app.cli.commands.asking.conversation import Answered, Conversation, Kind, Talk
from app.cli.sampling_flags import fields, sampling_options
from app.cli.server_connection import CommandError, failure, key_option, make_server, url_option
from app.cli.streams import write_answer
from app.client import Client, ClientError
from app.core.logs.printable import printable
from app.core.system.interrupts import interruptible

HELP = "/reset forgets the conversation, /quit (or ctrl-D) ends, ctrl-C stops an answer"
QUESTION = "> "
# Reasoning is dim, a call is not.
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def read_tools(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> list[dict[str, Any]]:
    """Descriptions of functions from a JSON file."""
    try:
        found = [] if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{path}: {error}") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise click.BadParameter(f"{path}: no list of tools as OpenAI's API has them")
    return found


@click.command("chat")
@url_option
@key_option
@click.option("--system", help="System message. Default: the server's.")
@click.option(
    "--tools",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    callback=read_tools,
    help="JSON list of functions, as in OpenAI's API; a call is shown, and what you type next is its result.",
)
@click.option(
    "--reasoning/--no-reasoning",
    default=None,
    help="Show what the model thinks. Default: in a terminal alone, dim; from a pipe it goes to standard error.",
)
@sampling_options
@click.option("--stats", is_flag=True, help="Tokens and times after each answer.")
def command(
    url: str,
    api_key: str | None,
    system: str | None,
    tools: list[dict[str, Any]],
    reasoning: bool | None,
    stats: bool,
    **given: Any,
) -> None:
    """Talk to a running server.

    /reset forgets the conversation, /quit or ctrl-D ends; ctrl-C stops an answer, not the program. Questions may also
    come on standard input, one a line.

    Exit codes: 0, 1 when the server cannot be reached or refuses (from standard input: at the first such line), 2 for
    wrong usage.
    """
    server = make_server(url, api_key)
    lines = Lines(sys.stdin.isatty())
    client = Client(server.url, server.api_key, max_retries=1)
    voice = Voice(lines.is_terminal if reasoning is None else reasoning)
    talk = Talk(client, voice, fields(given), system, tools, lines.is_terminal)
    if lines.is_terminal:
        click.echo(f"{server.shown_url}: {HELP}")
    with interruptible():
        _talk(Conversation(talk), lines, server.url, stats)


class Voice:
    """Writes the parts of an answer."""

    def __init__(self, shows_reasoning: bool):
        self._shows_reasoning = shows_reasoning

    def __call__(self, text: str, kind: Kind = "text", /) -> None:
        is_terminal = sys.stdout.isatty()
        if kind != "reasoning":
            write_answer(text)
        elif self._shows_reasoning and is_terminal:
            sys.stdout.write(DIM)
            write_answer(text)
            sys.stdout.write(PLAIN)
        elif self._shows_reasoning:
            click.echo(text, err=True, nl=False)


class Lines:
    """What is typed, or comes on standard input, line by line."""

    def __init__(self, is_terminal: bool):
        self.is_terminal = is_terminal
        if is_terminal:
            import readline  # noqa: F401  gives input() its history and editing

    def __iter__(self) -> Iterator[str]:
        while (line := self.next(QUESTION)) is not None:
            yield line

    def next(self, prompt: str) -> str | None:
        """The next line, None at the end. At the prompt of a terminal ctrl-C drops the line."""
        while True:
            try:
                return input(prompt if self.is_terminal else "")
            except KeyboardInterrupt:
                if not self.is_terminal:
                    raise
                click.echo()
            except EOFError:
                if self.is_terminal:
                    click.echo()
                return None
            except UnicodeDecodeError as error:
                raise CommandError(f"the input is not UTF-8: {error}") from None


def _talk(conversation: Conversation, lines: Lines, url: str, stats: bool) -> None:
    """Round after round, until the input ends."""
    for line in lines:
        match line.strip():
            case "":
                continue
            case "/quit" | "/exit":
                break
            case "/reset":
                conversation.forget()
                click.echo("[the conversation is forgotten]")
            case text if text.startswith("/"):
                click.echo(f"[{HELP}]")
            case text:
                _round(conversation, text, lines, url, stats)


def _round(conversation: Conversation, text: str, lines: Lines, url: str, stats: bool) -> None:
    """One question, and the results of the calls that it leads to; in a terminal what the server refuses is told and
    the conversation goes on."""
    try:
        answer = _told(conversation.ask(text), stats)
        while answer is not None and answer.calls:
            results = [(call, lines.next(f"{printable(call.name)} gives> ") or "") for call in answer.calls]
            answer = _told(conversation.go_on(results), stats)
    except ClientError as error:
        if not lines.is_terminal:
            raise failure(error, url) from None
        click.echo(f"[{printable(failure(error, url).message)}]", err=True)


def _told(answer: Answered | None, stats: bool) -> Answered | None:
    if stats and answer is not None:
        click.echo(stats_line(answer), err=True)
    return answer
