"""The whole product over HTTPS, and the development server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
import requests

from tests.e2e.conftest import Forklift
from tests.service.conftest import LOAD_PATIENCE_S, REPOSITORY, unused_port, wait_for
from tests.service.test_probe import probe
from tests.service.test_tls import TlsServer, tls_starter
from tests.tls import make_pair


class TlsForklift(TlsServer, Forklift):
    """``gunicorn wsgi:app`` behind a certificate."""

    def rows(self):
        return self.get("/readyz")[1]["slots"]

    def post(self, path, **options):
        url = f"https://127.0.0.1:{self.port}{path}"
        return requests.post(url, timeout=60, verify=str(self.pair.authority), **options)


@pytest.fixture
def start_tls_forklift(tmp_path):
    yield from tls_starter(tmp_path, kind=TlsForklift)


@pytest.mark.slow
def test_completions_over_https_streamed_and_not_and_a_clean_end(start_tls_forklift, model_folder):
    server = start_tls_forklift(model=model_folder("gpt2"), max_new_tokens=900)
    body = {"prompt": "def f(", "max_new_tokens": 5, "ignore_eos": True}
    assert server.post("/complete", json=body).json()["usage"]["completion_tokens"] == 5
    assert server.post("/complete", json=body | {"stream": True}).text.endswith("data: [DONE]\n\n")
    long = server.post("/complete", json=body | {"stream": True, "max_new_tokens": 300}, stream=True)
    server.signal(signal.SIGTERM)
    assert long.text.endswith("data: [DONE]\n\n")
    assert server.wait_for_exit() == 0


@pytest.mark.slow
def test_the_development_server_speaks_https(tmp_path, model_folder):
    pair = make_pair(tmp_path)
    port = unused_port()
    settings = pair.settings | {"model": model_folder("qwen2"), "bind": f"127.0.0.1:{port}"}
    environ = {f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "wsgi.py"], cwd=REPOSITORY, env=os.environ | environ, stdout=log, stderr=log
        )
    try:
        wait_for(lambda: probe(**settings)[0] == 0, "the development server", LOAD_PATIENCE_S)
        url = f"https://127.0.0.1:{port}/complete"
        answer = requests.post(url, json={"prompt": "x", "max_new_tokens": 3}, timeout=30, verify=str(pair.authority))
        assert answer.status_code == 200
        assert re.search(r"Running on https://", (tmp_path / "log").read_text())
    finally:
        process.terminate()
        process.wait(10)
