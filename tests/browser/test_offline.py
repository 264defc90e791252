"""The pages with the network cut off: a namespace of its own, in which only loopback is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from app.http.description.operations import OPERATIONS
from tests.browser.conftest import CHROMIUM
from tests.cut_off import CUT_OFF, can_cut_off
from tests.service.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def test_the_playground_and_the_description_work_with_nothing_but_loopback(tmp_path, model_folder):
    pytest.importorskip("playwright", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    if not can_cut_off():
        pytest.skip("unshare may not make a network namespace here")
    command = [*CUT_OFF, sys.executable, "-m", "tests.browser.offline", str(model_folder("qwen2")), str(tmp_path)]
    environ = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["outside"] == "ENETUNREACH"
    assert seen["playground"].startswith("def f(") and len(seen["playground"]) > len("def f(")
    assert seen["operations"] == len(OPERATIONS)
