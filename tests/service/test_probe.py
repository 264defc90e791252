"""The health check of images and units: through TLS, on a Unix socket, where nobody listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.service.conftest import REPOSITORY, wait_for
from tests.service.test_tls import TlsStepping, tls_starter


@pytest.fixture
def start_stepping_tls(tmp_path):
    yield from tls_starter(tmp_path, kind=TlsStepping)


def probe(**settings):
    """Exit code and output of the health check under these settings."""
    environ = {f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FORKLIFT_")}
    done = subprocess.run(
        [sys.executable, "-m", "app.serve.probe"],
        cwd=REPOSITORY,
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_it_passes_through_tls_and_needs_no_key(start_stepping_tls):
    server = start_stepping_tls(api_keys="secret", num_ready=0)
    server.wait_until_listening()
    settings = server.pair.settings | {"bind": f"0.0.0.0:{server.port}", "api_keys": "secret"}
    wait_for(lambda: probe(**settings) == (0, "ready\n"), "a health check that passes")


@pytest.mark.slow
def test_it_speaks_to_a_unix_socket(start_stepping, tmp_path):
    bind = f"unix:{tmp_path}/s"
    start_stepping(bind=bind, num_ready=0)
    wait_for(lambda: probe(bind=bind) == (0, "ready\n"), "a health check that passes")


def test_it_fails_where_nobody_listens():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*sock.getsockname())
        code, said = probe(bind=address)
    assert (code, said.count("\n")) == (1, 1)
    assert "no answer from 127.0.0.1" in said


def test_it_names_a_wrong_setting():
    code, said = probe(max_queu=1)
    assert code == 3
    assert said.startswith("forklift: unknown setting")
