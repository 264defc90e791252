"""Log set-up: one structlog pipeline for our own events and for the libraries' records.

Called once per process (master, worker, development server), never at import. Nothing that a stranger sends can steer
the terminal on which a log is read, and no traceback holds local variables.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog
from structlog.typing import Processor

from app.core.logs.log_writer import never_blocking
from app.core.logs.printable import json_printable, printable
from app.core.logs.tracebacks import traceback_text

LogFormat = Literal["auto", "json", "console"]
# A traceback stays readable.
KEPT = {"exception": "\n\t", "stack": "\n\t"}

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logging(log_format: LogFormat, *, log_prompts: bool = False) -> None:
    """Send every log record to standard error: as JSON lines, or for reading (``auto``: where a terminal shows it).

    ``log_prompts``: messages of exceptions are written even where they may quote a caller.
    """
    # In the thread that logs: it knows whose text it handles.
    format_exception: Processor = structlog.processors.ExceptionRenderer(
        lambda exc_info: traceback_text(exc_info[1], with_messages=log_prompts)
    )
    shared = [*_SHARED, format_exception]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(never_blocking(sys.stderr))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)


def is_console(log_format: LogFormat) -> bool:
    """Whether the log is for reading at a terminal."""
    return log_format == "console" or (log_format == "auto" and sys.stderr is not None and sys.stderr.isatty())


def _renderer(log_format: LogFormat) -> list[Processor]:
    if is_console(log_format):
        return [_escape_values, structlog.dev.ConsoleRenderer(colors=sys.stderr is not None and sys.stderr.isatty())]
    return [structlog.processors.JSONRenderer(ensure_ascii=False), _escape_line]


def _escape_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Before colours are added, which are escape sequences themselves."""
    return {
        printable(name): printable(value, KEPT.get(name, "")) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _escape_line(_logger: Any, _method: str, line: Any) -> str:
    return json_printable(line)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one package, e.g. ``serve`` or ``engine``."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(f"forklift.{name}")
    return logger
