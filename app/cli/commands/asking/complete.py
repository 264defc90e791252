"""``forklift complete``: continues a text on a running server, piece by piece."""

from __future__ import annotations

import sys
from typing import Any

import click

from app.cli.commands.asking.conversation import Answered, answered
from app.cli.sampling_flags import fields, sampling_options
from app.cli.server_connection import CommandError, failure, key_option, make_server, url_option
from app.cli.streams import write_answer
from app.client import Client, ClientError, Completion
from app.core.logs.printable import printable


@click.command("complete")
@click.argument("prompt", required=False)
@url_option
@key_option
@sampling_options
@click.option("--echo", is_flag=True, help="Write the prompt in front.")
@click.option("--stats", is_flag=True, help="Tokens and times on stderr.")
def command(prompt: str | None, url: str, api_key: str | None, echo: bool, stats: bool, **given: Any) -> None:
    """Continue PROMPT, or what comes on standard input, and write the text as it is generated.

    Exit codes: 0, 1 when the server cannot be reached or refuses, 2 for wrong usage, 130 after ctrl-C.
    """
    server = make_server(url, api_key)
    if prompt is None:
        if sys.stdin.isatty():
            raise click.UsageError("no PROMPT, and nothing on standard input")
        prompt = read_prompt()
    answer: Completion | None = None
    client = Client(server.url, server.api_key)
    try:
        if echo:
            write_answer(prompt)
        for piece in client.complete(prompt, stream=True, **fields(given)):
            write_answer(piece.text)
            answer = piece.answer
    except ClientError as error:
        raise failure(error, server.url) from None
    click.echo()
    if stats and answer is not None:
        click.echo(stats_line(answered(answer)), err=True)


def read_prompt() -> str:
    """All of standard input. Raises ``CommandError``."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise CommandError(f"the input is not UTF-8: {error}") from None


def stats_line(answer: Answered) -> str:
    """Tokens and times of a whole answer."""
    rest_s, num_new = (answer.total_ms - answer.first_ms) / 1000, answer.completion_tokens
    rate = f", {(num_new - 1) / rest_s:.1f} tokens/s" if num_new > 1 and rest_s else ""
    return (
        f"[{answer.prompt_tokens} + {num_new} tokens, first after {answer.first_ms:.0f} ms{rate}, "
        f"{printable(answer.finish_reason)}]"
    )
