"""The WSGI entry point: nothing happens at import, and a bad start is one line and exit code 3."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from app.serve import context
from tests.thinned import as_slow

WSGI = Path(__file__).resolve().parents[2] / "wsgi.py"


@pytest.fixture
def wsgi():
    spec = importlib.util.spec_from_file_location("wsgi_under_test", WSGI)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_application_is_made_once_and_only_when_asked_for(wsgi, world, monkeypatch):
    monkeypatch.setattr(context, "_current", None)
    with pytest.raises(RuntimeError, match="worker context"):
        _ = wsgi.app
    context.set_current(world.context)
    assert wsgi.app is wsgi.app
    assert wsgi.app.test_client().get("/livez").status_code == 200
    with pytest.raises(AttributeError):
        _ = wsgi.nothing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"FORKLIFT_MODLE": "x"}, "FORKLIFT_MODEL?"),
        as_slow(({"FORKLIFT_MODEL": "/nowhere", "FORKLIFT_BIND": "127.0.0.1:0"}, "/nowhere")),
        as_slow(({"FORKLIFT_BIND": "unix:/tmp/socket"}, "one host:port")),
    ],
)
def test_a_development_server_that_cannot_start_says_why_in_one_line(environ, text):
    done = subprocess.run(
        [sys.executable, WSGI], env=environ, cwd=WSGI.parent, capture_output=True, text=True, timeout=60
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("forklift: ")]
    assert done.returncode == 3
    assert text in line and "Traceback" not in done.stderr
