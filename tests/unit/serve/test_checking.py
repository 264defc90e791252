"""``gunicorn --check-config wsgi:app`` is silent about what can be served, and says in one line what cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.thinned import few_of

REPOSITORY = Path(__file__).parents[3]


def checked(*options: str, **settings: str) -> tuple[int, list[str]]:
    """Exit code and lines of standard error."""
    environ = os.environ | {"FORKLIFT_BIND": "127.0.0.1:0"} | {f"FORKLIFT_{name}": settings[name] for name in settings}
    command = [sys.executable, "-m", "gunicorn", "--check-config", *options, "wsgi:app"]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=120)
    assert ended.stdout == ""
    return ended.returncode, ended.stderr.splitlines()


@pytest.mark.slow
def test_a_check_of_good_settings_says_nothing():
    assert checked() == (0, [])


@pytest.mark.parametrize(
    ("options", "settings", "word"),
    few_of(
        [
            ([], {"MAX_QUEUE": "many"}, "FORKLIFT_MAX_QUEUE"),
            (["--preload"], {}, "--preload"),
            ([], {"MODEL": "/no/such/folder"}, "/no/such/folder"),
        ],
        1,
    ),
)
def test_a_check_of_what_cannot_be_served_is_one_line(options, settings, word):
    code, lines = checked(*options, **settings)
    assert (code, len(lines)) == (3, 1)
    assert word in lines[0]
