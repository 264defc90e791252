"""The curl lines of ``docs/api.md``, run as they stand there against a running server."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.http.application.factory import ROUTES
from app.http.description.task_routes import TASK_ROUTES
from tests.contract.running import KEY, MODEL
from tests.thinned import few_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
CURL_LINES = [line for line in PAGE.splitlines() if line.startswith("curl ")]
# The server of this test has a language model.
FOR_ENCODERS = (
    "[MASK]",
    "$U/v2/models/",
    *(f"$U{path} " for path, (task, _) in TASK_ROUTES.items() if task != "generate"),
)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", few_of(CURL_LINES, 5))
def test_a_line_of_the_page_answers(running, line):
    options = f'-s -o /dev/null -w "%{{http_code}}" -H "Authorization: Bearer {KEY}" '
    command = line.replace("curl ", f"curl {options}", 1).replace("forklift-demo", MODEL).replace("minilm", MODEL)
    script = f"U={running.url}; J='Content-Type: application/json'; {command}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    is_for_adapters = "lora_adapter" in line
    assert done.stdout == ("404" if is_for_adapters else "400" if any(mark in line for mark in FOR_ENCODERS) else "200")


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_on_the_page(route):
    path = re.escape(route.split("<")[0])
    assert any(re.search(rf"\$U{path}(\s|$|[a-z])", line) for line in CURL_LINES)
