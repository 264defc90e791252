"""With the network cut off: folders serve, a hub id is one clear line, and nothing ever asks a hub for a folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.families.folders import FOLDERS
from tests.families.test_bad_folders import load

REPOSITORY = Path(__file__).resolve().parents[2]
UNSHARE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]


def can_cut_off() -> bool:
    """Whether this machine lets us have an empty network namespace with a loopback of its own."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*UNSHARE, "ip link set lo up"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_cut_off(), reason="needs unshare, ip and the right to a network namespace")
def test_servers_start_and_answer_in_an_empty_network_namespace(family_folder, tmp_path):
    folders = [str(family_folder(family)) for family in ("codegen", "bert")]
    command = 'ip link set lo up && exec "$0" -m tests.families.offline "$@"'
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB_OFFLINE")}
    done = subprocess.run(
        [*UNSHARE, command, sys.executable, str(tmp_path), *folders],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout.splitlines()[-1])
    assert not saw["reaches_the_network"]
    assert saw["codegen"].startswith("#print") and len(saw["bert"]) == 5
    assert saw["hub"]["code"] == 3
    [line] = [text for text in saw["hub"]["log"].splitlines() if text.startswith("forklift: ")]
    assert "some-org/some-model" in line and "Traceback" not in saw["hub"]["log"]


@pytest.mark.parametrize("family", FOLDERS)
def test_loading_a_folder_opens_no_connection(family_folder, monkeypatch, family):
    folder = family_folder(family)
    asked: list[object] = []

    def refuse(*address: object, **_options: object) -> None:
        asked.append(address)
        raise OSError("the network is cut off")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    load(folder, trust_remote_code=True)
    assert asked == []
