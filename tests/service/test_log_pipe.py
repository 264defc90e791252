"""A log that nobody reads stops nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.service.conftest import REPOSITORY, Server, unused_port, wait_for

NUM_REQUESTS = 60


class MuteServer(Server):
    """Its standard error is a pipe that is never read."""

    def __init__(self, log_pipe: int):
        self.port = unused_port()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FORKLIFT_")}
        settings = {"FORKLIFT_BIND": f"127.0.0.1:{self.port}", "FORKLIFT_DEVICE": "cpu", "FORKLIFT_WORKERS": "1"}
        command = [sys.executable, "-m", "gunicorn", "-c", "tests/service/gunicorn_stepping.py", "wsgi:app"]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environ | settings, stderr=log_pipe, stdout=subprocess.DEVNULL
        )

    def rows(self):
        return self.get("/readyz")[1]["slots"]


def is_up(server) -> bool:
    try:
        return server.get("/readyz")[0] == 200
    except OSError:
        return False


@pytest.mark.slow
def test_a_server_whose_log_nobody_reads_serves_and_ends():
    reader, writer = os.pipe()
    # A full pipe from the start.
    os.set_blocking(writer, False)
    try:
        while os.write(writer, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(writer, True)
    server = MuteServer(writer)
    try:
        wait_for(lambda: is_up(server), "the server", 120)
        for _ in range(5):
            assert server.get("/livez", timeout_s=10)[0] == 200
        for _ in range(NUM_REQUESTS):
            assert server.get("/v1/models/" + "x" * 2000, timeout_s=10)[0] == 404
        wait_for(lambda: server.get("/livez")[0] == 200, "a probe")
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit() == 0
    finally:
        server.stop()
        os.close(reader)
        os.close(writer)
