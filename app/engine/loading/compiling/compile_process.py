"""The processes that compile for a server (``python -m`` runs this file): limited, out of its way, gone with it.

One compiles; the one above it has it rest where others want the processors (``compile_pace``).

Standard input has one line, its order, and stays open for as long as the server wants it. What came of it goes into a
pipe, whose descriptor is the argument: what inductor, the compiler or a model's code write is not mistaken for it, and
a full disk does not keep it back.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.system.parents import end_with
from app.engine.loading.compiling.compile_pace import follow

# What a pipe holds that nobody reads yet.
MAX_OUTCOME_BYTES = 1 << 16


def serve() -> None:
    """Do what the order says, then leave."""
    order = json.loads(read_line())
    own = os.getpid()
    worker = os.fork()
    if worker:
        os.close(int(sys.argv[1]))
        follow(worker, rests=order["rests"])
    end_with(own)
    limit(order)
    outcome = outcome_of(order["settings"])
    os.write(int(sys.argv[1]), json.dumps(outcome).encode()[:MAX_OUTCOME_BYTES])
    os._exit(0)


def read_line() -> bytes:
    """Standard input up to its first line end, without a buffer: a thread waits for more of it until the end."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            os._exit(1)
        line += part
    return line


def limit(order: dict[str, Any]) -> None:
    """What the compiler may take; all of it holds for the processes that it starts, too."""
    os.umask(0o077)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, order["cpu_s"]),
        (resource.RLIMIT_DATA, order["memory_bytes"]),
        (resource.RLIMIT_FSIZE, order["file_bytes"]),
    ):
        resource.setrlimit(kind, (most, most))
    # Where memory runs out all the same, the kernel is to take this process and no worker.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def outcome_of(given: dict[str, Any]) -> dict[str, Any]:
    """``about`` of the package that was made, or the ``failure`` in a line."""
    # Imported here: torch takes its number of threads and the folder of its files from the environment.
    from app.core.errors import ForkliftError
    from app.core.logs.logging import configure_logging
    from app.core.settings import Settings
    from app.engine.loading.compiling.packaging import make_package
    from app.models.compiled.package_store import PackageError

    configure_logging("json")
    try:
        package = make_package(Settings.model_validate(given), lambda line: print(line, file=sys.stderr, flush=True))
    except (ForkliftError, PackageError) as error:
        return {"failure": str(error)}
    except OSError as error:
        return {"failure": f"{error.filename or 'a file'}: {error.strerror or error}"}
    except MemoryError:
        return {"failure": "it ran out of the memory that it may take"}
    return {"about": {**package.about, "bytes": package.num_bytes}}


if __name__ == "__main__":
    serve()
