"""Run inside an empty network namespace: starts servers from folders, asks them, and prints what it saw as JSON.

``python -m tests.families.offline SCRATCH CODEGEN BERT``
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter


def reaches_the_network() -> bool:
    """Whether a packet could leave: 192.0.2.1 is kept for documentation (RFC 5737)."""
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=1).close()
    except OSError as error:
        return not isinstance(error, ConnectionError | OSError) or "unreachable" not in str(error)
    return True


def main(scratch: Path, codegen: Path, bert: Path) -> None:
    starter = server_starter(scratch, Forklift)
    start = next(starter)
    saw = {"reaches_the_network": reaches_the_network()}
    try:
        answer = start(model=codegen).post("/", json={"data": "#print", "max_new_tokens": 4})
        saw["codegen"] = answer.json()
        headers = {"Content-Type": "text/plain"}
        saw["bert"] = start(model=bert).post("/", data="test [MASK]", headers=headers).json()
        hub = start(num_ready=0, model="some-org/some-model")
        saw["hub"] = {"code": hub.wait_for_exit(120), "log": hub.log()}
    finally:
        next(starter, None)
    print(json.dumps(saw))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
