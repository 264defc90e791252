"""The ``forklift`` program: mounts the commands."""

from __future__ import annotations

import click

from app import __version__
from app.cli import bench, chat, complete, completion, serve

EPILOG = (
    "Exit codes of every command: 0 done, 1 it could not be done or faults were found, 2 wrong usage, 3 the server "
    "cannot start (serve), 130 ended by ctrl-C."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="forklift")
def main() -> None:
    """Serves Hugging Face transformers models as JSON over HTTP."""


for module in (serve, bench, chat, complete, completion):
    main.add_command(module.command)
