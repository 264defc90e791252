"""The ``forklift`` program: mounts the commands."""

from __future__ import annotations

from typing import Any

import click

from app import __version__
from app.cli import bench, chat, complete, completion, doctor, models, pack, report, serve, top

INTERRUPTED = 130
EPILOG = (
    "Exit codes of every command: 0 done, 1 it could not be done or faults were found, 2 wrong usage, 3 the server "
    "cannot start (serve), 130 ended by ctrl-C."
)


class Program(click.Group):
    """Ends with 130 after ctrl-C, as shells expect it; click's own way is 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="forklift")
def main() -> None:
    """Serves Hugging Face transformers models as JSON over HTTP."""


for module in (serve, doctor, models, top, bench, report, chat, complete, pack, completion):
    main.add_command(module.command)
