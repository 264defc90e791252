"""The ``forklift`` program: mounts the commands, and sees to it that each ends with a code and at most one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from app import __version__
from app.cli.commands import (
    bench,
    compile,
    doctor,
    models,
    pack,
    package_cache,
    report,
    serve,
    shell_completion,
    top,
)
from app.cli.commands.asking import chat, complete, servers, text_tasks_command
from app.cli.commands.scaling import scale
from app.cli.ending import run_to_end
from app.cli.streams import prepare_streams
from app.core.system.interrupts import leave_at_once

EPILOG = (
    "Exit codes of every command: 0 done, 1 it could not be done or faults were found, 2 wrong usage, 3 the server "
    "cannot start (serve), 130 ended by ctrl-C."
)


class Program(click.Group):
    """Ends with 130 after ctrl-C, as shells expect it, and with one line for what click would let through."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's; ``args`` None: this process is the program, and its streams and signals are its own."""
        run = partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        if args is None:
            leave_at_once()
            prepare_streams()
        sys.exit(run_to_end(run))


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="forklift")
def main() -> None:
    """Serves Hugging Face transformers models as JSON over HTTP."""


for module in (
    serve,
    doctor,
    models,
    top,
    servers,
    bench,
    report,
    chat,
    complete,
    text_tasks_command,
    pack,
    compile,
    package_cache,
    scale,
    shell_completion,
):
    main.add_command(module.command)
