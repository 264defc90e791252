"""How a command ends: an exit code, and for every failure one line on standard error."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

import click

from app.cli.streams import flush_streams
from app.core.logs.printable import printable
from app.core.system.interrupts import INTERRUPTED

FAILED = 1
# Not under FORKLIFT_: a setting that the server does not know stops its start.
TRACEBACK_VARIABLE = "FORKLIFTCLIENT_TRACEBACK"
OUTPUT_ERRORS = (errno.ENOSPC, errno.EBADF, errno.EIO, errno.EFBIG, errno.EDQUOT)


def run_to_end(work: Callable[[], object]) -> int:
    """The exit code of ``work``, which may raise whatever it likes."""
    code = _code_of(work)
    if (reason := flush_streams()) is not None and code == 0:
        say(f"cannot write the output: {reason}")
        code = FAILED
    flush_streams()
    return code


def say(line: str) -> None:
    """One line for the user; where even that cannot be written, the exit code has to do."""
    with suppress(OSError, ValueError):
        click.echo(f"forklift: {printable(line)}", err=True)


def _code_of(work: Callable[[], object]) -> int:
    try:
        result = work()
    except SystemExit as ending:
        return _as_code(ending.code)
    except click.ClickException as error:
        return _show(error)
    except (click.Abort, KeyboardInterrupt) as error:
        is_interrupt = isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)
        return INTERRUPTED if is_interrupt else FAILED
    except Exception as error:
        return _unexpected(error)
    return _as_code(result)


def _as_code(result: object) -> int:
    if isinstance(result, int):
        return int(result)
    return 0 if result is None else FAILED


def _show(error: click.ClickException) -> int:
    text = io.StringIO()
    error.show(file=text)
    with suppress(OSError, ValueError):
        click.echo(printable(text.getvalue(), keep="\n"), err=True, nl=False)
    return error.exit_code


def _unexpected(error: Exception) -> int:
    """A full disk, a reader that left, or a fault of ours."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error, file=sys.stderr)
        return FAILED
    if isinstance(error, BrokenPipeError):
        return FAILED
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or ("cannot write the output" if error.errno in OUTPUT_ERRORS else None)
        say(f"{place}: {error.strerror}" if place else error.strerror)
        return FAILED
    first = (str(error).strip().splitlines() or [""])[0][:300]
    say(f"unexpected {type(error).__name__}: {first} ({TRACEBACK_VARIABLE}=1 shows where; please report it)")
    return FAILED
