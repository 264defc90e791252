"""Renders chat templates in a process of its own, which its parent kills when one does not come to its end.

Run as a script: requests and answers are JSON with their length in front. A template is a stranger's program; the
sandbox keeps it from the machine, and this process from endless time and memory. Imports neither torch nor the app.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

HEADER = struct.Struct(">Q")
MEMORY_BYTES = 512 * 2**20
MAX_CHARACTERS = 2**24
MAX_ERROR_LENGTH = 300
READY = b"!"


def main() -> None:
    """Serve until the parent is gone."""
    from transformers.utils.chat_template_utils import render_jinja_template

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit_memory()
    answers.write(READY)
    answers.flush()
    while request := read_message(sys.stdin.buffer):
        answer = json.dumps(answer_to(request, render_jinja_template)).encode()
        answers.write(HEADER.pack(len(answer)) + answer)
        answers.flush()


def limit_memory() -> None:
    """What this process has now, and so much more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def read_message(stream: BinaryIO) -> dict[str, Any] | None:
    """The next request; None at the end."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    message: dict[str, Any] = json.loads(stream.read(HEADER.unpack(header)[0]))
    return message


def answer_to(request: dict[str, Any], render: Any) -> dict[str, str]:
    """``text``, or ``error`` with what the template says or what stopped it."""
    try:
        [text], _ = render(**request)
        # Half of a surrogate pair, which no tokenizer and no answer could hold.
        text.encode()
    except MemoryError:
        return {"error": "it takes too much memory"}
    except Exception as error:
        is_own = type(error).__module__.startswith("jinja2")
        message = str(error) if is_own else f"{type(error).__name__}: {error}"
        return {"error": message[:MAX_ERROR_LENGTH].encode(errors="replace").decode()}
    return {"text": text} if len(text) <= MAX_CHARACTERS else {"error": "it writes too much text"}


if __name__ == "__main__":
    main()
