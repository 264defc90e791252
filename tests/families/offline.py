"""Run inside an empty network namespace: starts servers from folders, asks them, and prints what it saw as JSON.

``python -m tests.families.offline SCRATCH CODEGEN BERT``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.cut_off import bring_up_loopback, error_of_leaving
from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter


def main(scratch: Path, codegen: Path, bert: Path) -> None:
    bring_up_loopback()
    starter = server_starter(scratch, Forklift)
    start = next(starter)
    try:
        completing, filling, hub = (start(num_ready=0, model=model) for model in (codegen, bert, "some-org/some-model"))
        for server in (completing, filling):
            server.wait_until_listening()
            server.wait_until_ready()
        answer = completing.post("/", json={"data": "#print", "max_new_tokens": 4})
        filled = filling.post("/", data="test [MASK]", headers={"Content-Type": "text/plain"})
        said = {"code": hub.wait_for_exit(120), "log": hub.log()}
    finally:
        next(starter, None)
    print(json.dumps({"outside": error_of_leaving(), "codegen": answer.json(), "bert": filled.json(), "hub": said}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
