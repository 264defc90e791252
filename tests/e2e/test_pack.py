"""A kit is made, installed and served with no network but loopback; takes minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos

SERVE = """
set -eu
ip link set lo up
PYTHON={python} sh {kit}/install.sh {environment}
{environment}/bin/forklift serve --bind 127.0.0.1:5000 --device cpu --model {kit}/models/{name} & server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for _ in $(seq 120); do
  FORKLIFT_BIND=127.0.0.1:5000 {environment}/bin/python -m app.serve.probe >/dev/null 2>&1 && break; sleep 1
done
{environment}/bin/forklift complete 'def f(' --max-new-tokens 4 --echo
kill $server
wait $server
"""


@pytest.fixture
def without_network():
    """The command that runs another one in an empty network namespace."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("ip") is None:
        pytest.skip("no unshare or ip")
    if subprocess.run([unshare, "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("network namespaces are not allowed here")
    return [unshare, "-n"]


def test_a_kit_installs_and_serves_without_a_network(model_folder, tmp_path: Path, without_network):
    kit, environment = tmp_path / "kit", tmp_path / "environment"
    model = model_folder("qwen2")
    code = "from app.cli.main import main; main()"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FORKLIFT", "PIP_"))}
    subprocess.run(
        [sys.executable, "-c", code, "pack", "--no-index", "--model", str(model), "--output", str(kit)],
        check=True,
        env=clean,
        timeout=600,
    )
    script = SERVE.format(python=sys.executable, kit=kit, environment=environment, name=model.name)
    done = subprocess.run(
        [*without_network, "bash", "-c", script], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "0 faults" in done.stdout
    assert "def f(" in done.stdout
