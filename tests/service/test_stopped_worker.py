"""A worker that is stopped (SIGSTOP) costs its own clients and nobody else."""

from __future__ import annotations

import os
import signal

import pytest

from tests.service.conftest import wait_for


@pytest.mark.slow
def test_the_others_serve_on_while_a_worker_is_stopped(start_server):
    server = start_server(workers=2, num_ready=2, max_batch_size=4)
    stopped = server.rows()[0]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        for _ in range(10):
            assert server.get("/livez", timeout_s=10)[1]["pid"] != stopped
            assert server.get("/work?s=0.1", timeout_s=10)[0] == 200
        assert len(server.rows()) == 2
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: server.get("/livez")[1]["pid"] == stopped, "the worker to be back")
