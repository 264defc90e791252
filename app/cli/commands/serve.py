"""``forklift serve``: ``gunicorn wsgi:app`` with a flag for every setting."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from app.core.errors import StartError
from app.core.settings import PREFIX, Settings, load_settings

START_FAILED = 3
LAUNCHER = Path(__file__).resolve().parents[2] / "serve" / "launcher.py"


def serve(**flags: Any) -> NoReturn:
    """Start the server.

    Every flag is also a setting in the environment, FORKLIFT_ and its name in capitals; a flag wins.

    Exit codes: 0 after SIGTERM or ctrl-C, 2 for a wrong flag, 3 when the server cannot start.
    """
    given = {PREFIX + name.upper(): str(value) for name, value in flags.items() if value is not None}
    environ = {**os.environ, **given}
    try:
        load_settings(environ)
    except StartError as error:
        click.echo(f"forklift: {error}", err=True)
        sys.exit(START_FAILED)
    folder = server_folder()
    config = str(folder / "gunicorn.conf.py")
    # -P: nothing of the working folder is imported, whatever is called `app` or `wsgi` there.
    command = [sys.executable, "-P", str(LAUNCHER), "--config", config, "--pythonpath", str(folder), "wsgi:app"]
    # Until the launcher's first lines ctrl-C would be a traceback of Python's.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.execve(sys.executable, command, environ)


def server_folder() -> Path:
    """Where ``gunicorn.conf.py`` and ``wsgi.py`` are: beside the package in a clone, else where pip put them."""
    beside = Path(__file__).resolve().parents[3]
    if (beside / "gunicorn.conf.py").is_file() and (beside / "wsgi.py").is_file():
        return beside
    return Path(sysconfig.get_path("data")) / "share" / "forklift"


def option(name: str, field: FieldInfo) -> click.Option:
    """The flag of one setting."""
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=field.description)
    return click.Option([flag], type=_kind(field), default=None, help=field.description)


def _kind(field: FieldInfo) -> Any:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType] or [field.annotation]
    return kinds[0] if kinds[0] in (int, float) else str


command = click.Command(
    "serve",
    callback=serve,
    params=[option(name, field) for name, field in Settings.model_fields.items()],
    help=serve.__doc__,
)
