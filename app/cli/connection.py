"""The server that a command talks to: its options, and answers or one line that says why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import requests

from app.client import ClientError, RequestError

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
        click.echo(f"forklift: {self.format_message()}", err=True, file=file)


@dataclass(frozen=True)
class Server:
    """Where a server answers, and the key that it wants."""

    url: str
    api_key: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}

    def get(self, path: str, timeout_s: float = TIMEOUT_S) -> requests.Response:
        """The answer, whatever its status. Raises ``CommandError`` where there is none."""
        try:
            return requests.get(self.url + path, headers=self.headers, timeout=timeout_s)
        except requests.RequestException as error:
            raise CommandError(f"cannot reach {self.url}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Why a connection failed, without the library's wrapping."""
    while (cause := _cause(error)) is not None:
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cause(error: BaseException) -> BaseException | None:
    """urllib3 keeps what it met in ``reason``, others in the chain."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return inner
    if error.args and isinstance(error.args[0], BaseException):
        return error.args[0]
    return error.__cause__ or error.__context__


def told(response: requests.Response) -> str:
    """What the server says of an error: its envelope's message, or the beginning of its text."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return (response.text.strip().splitlines() or ["no text"])[0][:200]


def listed(response: requests.Response) -> dict[str, dict[str, Any]]:
    """The objects of an OpenAI-style list by their ids. Raises ``CommandError`` for any other answer."""
    if not response.ok:
        raise CommandError(f"{response.url} answered {response.status_code}: {told(response)}")
    try:
        return {str(one["id"]): one for one in response.json()["data"]}
    except (ValueError, KeyError, TypeError):
        raise CommandError(f"{response.url} did not answer a list of models") from None


def failure(error: ClientError, url: str) -> CommandError:
    """The line for an error of the Python client."""
    if isinstance(error, RequestError):
        code = f" {error.code}" if error.code else ""
        return CommandError(f"{url} answered {error.status}{code}: {error.message}")
    return CommandError(f"{url}: {reason(error)}")


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
    """Checks the URL. Raises ``click.BadParameter``."""
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url} is not a URL that begins with http:// or https://")
    return Server(url.rstrip("/").removesuffix("/v1"), api_key)
