"""``forklift chat``: a conversation in the terminal, answers streamed as they come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from app.cli.commands.asking.complete import stats_line
from app.cli.sampling_flags import fields, sampling_options
from app.cli.server_connection import CommandError, failure, key_option, make_server, url_option
from app.cli.streams import write_answer
from app.client import Client, ClientError, Completion
from app.core.logs.printable import printable
from app.core.system.interrupts import interruptible

HELP = "/reset forgets the conversation, /quit (or ctrl-D) ends, ctrl-C stops an answer"
Say = Callable[[str], None]


class Conversation:
    """The rounds so far, and the next one. ``say`` gets each piece of text; ``is_typed``: ctrl-C stops the answer."""

    def __init__(self, client: Client, system: str | None, options: dict[str, Any], say: Say, is_typed: bool):
        self.rounds: list[tuple[str, str]] = []
        self._client, self._options, self._say, self._is_typed = client, options, say, is_typed
        self._system = {} if system is None else {"system": system}

    def ask(self, prompt: str) -> Completion | None:
        """Stream the answer; None where it was interrupted, what had come is kept. Raises ``ClientError``."""
        texts: list[str] = []
        answer = None
        pieces = self._client.chat(prompt, stream=True, history=self.rounds, **self._system, **self._options)
        try:
            for piece in pieces:
                texts.append(piece.text)
                self._say(piece.text)
                answer = piece.answer or answer
        except KeyboardInterrupt:
            if not self._is_typed:
                raise
            self._say(" [stopped]")
        finally:
            _close(pieces)
        self._say("\n")
        self.rounds.append((prompt, "".join(texts)))
        return answer


def _close(pieces: Iterator[Any]) -> None:
    """Closes the connection, so that the server does not go on for nobody."""
    close = getattr(pieces, "close", None)
    if close is not None:
        close()


@click.command("chat")
@url_option
@key_option
@click.option("--system", help="System message. Default: the server's.")
@sampling_options
@click.option("--stats", is_flag=True, help="Tokens and times after each answer.")
def command(url: str, api_key: str | None, system: str | None, stats: bool, **given: Any) -> None:
    """Talk to a running server.

    /reset forgets the conversation, /quit or ctrl-D ends; ctrl-C stops an answer, not the program. Questions may also
    come on standard input, one a line.

    Exit codes: 0, 1 when the server cannot be reached or refuses (from standard input: at the first such line), 2 for
    wrong usage.
    """
    server = make_server(url, api_key)
    is_terminal = sys.stdin.isatty()
    client = Client(server.url, server.api_key, max_retries=1)
    conversation = Conversation(client, system, fields(given), write_answer, is_terminal)
    if is_terminal:
        click.echo(f"{server.shown_url}: {HELP}")
    with interruptible():
        _talk(conversation, server.url, stats, is_terminal)


def _talk(conversation: Conversation, url: str, stats: bool, is_terminal: bool) -> None:
    """Round after round, until the input ends."""
    for line in lines(is_terminal):
        match line.strip():
            case "":
                continue
            case "/quit" | "/exit":
                break
            case "/reset":
                conversation.rounds.clear()
                click.echo("[the conversation is forgotten]")
            case text if text.startswith("/"):
                click.echo(f"[{HELP}]")
            case text:
                _round(conversation, text, url, stats, is_terminal)


def _round(conversation: Conversation, text: str, url: str, stats: bool, is_terminal: bool) -> None:
    """One question; in a terminal what the server refuses is told and the conversation goes on."""
    try:
        answer = conversation.ask(text)
    except ClientError as error:
        if not is_terminal:
            raise failure(error, url) from None
        click.echo(f"[{printable(failure(error, url).message)}]", err=True)
        return
    if stats and answer is not None:
        click.echo(stats_line(answer), err=True)


def lines(is_terminal: bool) -> Iterator[str]:
    """What is typed, line by line, until the input ends. At the prompt of a terminal ctrl-C drops the line."""
    if is_terminal:
        import readline  # noqa: F401  gives input() its history and editing
    while True:
        try:
            yield input("> " if is_terminal else "")
        except KeyboardInterrupt:
            if not is_terminal:
                raise
            click.echo()
        except EOFError:
            if is_terminal:
                click.echo()
            return
        except UnicodeDecodeError as error:
            raise CommandError(f"the input is not UTF-8: {error}") from None
