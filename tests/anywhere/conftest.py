"""The contract as a URL shows it: the same tests for Gunicorn, for TLS, for the bridge of replicas, and for any server.

``pytest tests/anywhere --url http://host:port --key KEY --ca FILE`` asks one that runs already, which serves a model
that generates text; with ``--look URL`` for each process where several are behind the URL. Without a URL servers with
the demo model are started, among the slow tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.anywhere.target import Target
from tests.e2e.conftest import Forklift
from tests.service.conftest import REPOSITORY, server_starter, unused_port, wait_for
from tests.tls import make_pair

KEY = "anywhere"
# Short enough for a test to wait for it.
BODY_TIMEOUT_S = 2.0
OWN = {"body_timeout_s": BODY_TIMEOUT_S, "api_keys": KEY, "max_queue": 10}
KINDS = ("gunicorn", "tls", "bridge")


class TlsForklift(Forklift):
    scheme = "https"

    def wait_until_ready(self, num_slots: int = 1) -> list[dict[str, object]]:
        """Left to ``target``, which knows the authority."""
        return []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        given = metafunc.config.getoption("--url")
        kinds = ["given"] if given else [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
        metafunc.parametrize("target", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server that is asked, ready."""
    if request.param == "given":
        options = [request.config.getoption(name) for name in ("--url", "--key", "--ca")]
        yield Target(options[0].rstrip("/"), *options[1:], looks=tuple(request.config.getoption("--look") or ()))
        return
    folder = tmp_path_factory.mktemp(request.param)
    servers = {"gunicorn": gunicorn_server, "tls": tls_server, "bridge": bridge_server}[request.param](folder)
    found = next(servers)
    wait_for(lambda: _is_ready(found), "a ready server", 120)
    yield found
    next(servers, None)


def _is_ready(target: Target) -> bool:
    try:
        return target.get("/readyz").status_code == 200
    except requests.ConnectionError:
        return False


def gunicorn_server(folder: Path) -> Iterator[Target]:
    starter = server_starter(folder, Forklift)
    server = next(starter)(**OWN)
    yield Target(f"http://127.0.0.1:{server.port}", KEY, body_timeout_s=BODY_TIMEOUT_S)
    next(starter, None)


def tls_server(folder: Path) -> Iterator[Target]:
    pair = make_pair(folder / "pair")
    starter = server_starter(folder, TlsForklift)
    server = next(starter)(**OWN, **pair.settings)
    yield Target(f"https://127.0.0.1:{server.port}", KEY, str(pair.authority), BODY_TIMEOUT_S)
    next(starter, None)


def bridge_server(folder: Path) -> Iterator[Target]:
    pytest.importorskip("uvicorn", reason="the bridge is asked through uvicorn")
    port = unused_port()
    settings = {f"FORKLIFT_{name.upper()}": str(value) for name, value in OWN.items()}
    environ = {**os.environ, "FORKLIFT_DEVICE": "cpu", "FORKLIFT_COMPILE": "never", **settings}
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.anywhere.bridge_program", str(port)]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield Target(f"http://127.0.0.1:{port}", KEY, body_timeout_s=BODY_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
