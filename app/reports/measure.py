"""A measuring process: takes one request, says how far it is, then what it found (see ``child``)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from app.core.errors import ForkliftError
from app.core.logs.logging import configure_logging
from app.core.settings import load_settings
from app.core.system.memory.heap import NUM_HEAPS, limit_heaps

Measurement = Callable[..., dict[str, Any]]


def measurement(name: str) -> Measurement:
    """The function of a report; imports torch."""
    if name == "resources":
        from app.reports.resources import measure_resources

        return measure_resources
    from app.reports.variant import measure_variant

    return measure_variant


def main() -> None:
    """Answer the request on standard input. Standard output belongs to the answer alone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    configure_logging("console")
    # As a worker has it, whose memory this tells.
    limit_heaps(NUM_HEAPS)

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request = json.load(sys.stdin)
    try:
        measure = measurement(request.pop("measure"))
        say(result=measure(load_settings(), lambda share: say(progress=share), **request))
    except ForkliftError as error:
        say(error=str(error))
    except OSError as error:
        say(error=f"{error.filename or 'the temporary folder'}: {error.strerror}")


if __name__ == "__main__":
    main()
