"""The server that a command talks to: its options, and answers or one line that says why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from app.client import ClientError, ForeignAnswerError, RequestError
from app.client.connection.endpoint import Endpoint
from app.client.connection.exchange import Answer
from app.client.connection.server_urls import shown_url
from app.client.error_reading import make_error
from app.core.logs.printable import printable

DEFAULT_URL = "http://127.0.0.1:5000"
# Not under FORKLIFT_: those are the server's settings, and one that it does not know stops its start.
URL_VARIABLE = "FORKLIFTCLIENT_URL"
KEY_VARIABLE = "FORKLIFTCLIENT_API_KEY"
TIMEOUT_S = 10.0

Function = TypeVar("Function", bound=Callable[..., Any])


class CommandError(click.ClickException):
    """The command cannot do what it was asked to; one line, exit code 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        click.echo(f"forklift: {printable(self.format_message())}", err=True, file=file)


@dataclass(frozen=True)
class Server:
    """Where a server answers, and the key that it wants, which nothing prints."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    @property
    def shown_url(self) -> str:
        """Without a user and password."""
        return shown_url(self.url)

    def get(self, path: str, timeout_s: float = TIMEOUT_S) -> Answer:
        """The answer, whatever its status, within ``timeout_s``. Raises ``CommandError`` where there is none."""
        try:
            with Endpoint(self.url, self.api_key).open("GET", path, timeout_s) as exchange:
                answer = exchange.whole()
        except ClientError as error:
            raise CommandError(str(error)) from None
        if 300 <= answer.status < 400:
            raise CommandError(answer.oddity())
        return answer


def told(answer: Answer) -> str:
    """What the server says of an error: its envelope's message, or the beginning of its text."""
    try:
        return make_error(answer.json()).message
    except ForeignAnswerError:
        return answer.beginning()


def listed(answer: Answer) -> dict[str, dict[str, Any]]:
    """The objects of an OpenAI-style list by their ids. Raises ``CommandError`` for any other answer."""
    if answer.status != 200:
        raise CommandError(f"{answer.url} answered {answer.status}: {told(answer)}")
    try:
        found = answer.json()["data"]
        return {one["id"]: dict(one) for one in found if isinstance(one["id"], str)}
    except (ForeignAnswerError, ValueError, KeyError, TypeError):
        raise CommandError(f"{answer.url} did not answer a list of models") from None


def failure(error: ClientError, url: str) -> CommandError:
    """The line for an error of the Python client."""
    if isinstance(error, RequestError):
        code = f" {error.code}" if error.code else ""
        return CommandError(f"{shown_url(url)} answered {error.status}{code}: {error.message}")
    return CommandError(str(error).removeprefix("cannot reach "))


def url_option(function: Function) -> Function:
    """``--url``."""
    return click.option(
        "--url", envvar=URL_VARIABLE, default=DEFAULT_URL, show_default=True, show_envvar=True, help="The server."
    )(function)


def key_option(function: Function) -> Function:
    """``--api-key``; better by the environment, since other users can see arguments."""
    return click.option("--api-key", envvar=KEY_VARIABLE, show_envvar=True, help="Key that the server asks for.")(
        function
    )


def make_server(url: str, api_key: str | None) -> Server:
    """Checks URL and key. Raises ``click.BadParameter``, ``CommandError``."""
    url = url.strip()
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{shown_url(url)} is not a URL that begins with http:// or https://")
    try:
        endpoint = Endpoint(url.rstrip("/").removesuffix("/v1"), api_key)
    except ClientError as error:
        raise CommandError(str(error)) from None
    key = api_key.strip() if api_key else None
    return Server(endpoint.url, key or None)
