"""With the network cut off: folders serve, a hub id is one clear line, and nothing ever asks a hub for a folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.cut_off import CUT_OFF, can_cut_off
from tests.families.folders import FOLDERS
from tests.families.test_bad_folders import load
from tests.service.conftest import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not can_cut_off(), reason="needs unshare and the right to a network namespace")
def test_servers_start_and_answer_in_an_empty_network_namespace(family_folder, tmp_path):
    folders = [str(family_folder(family)) for family in ("codegen", "bert")]
    command = [*CUT_OFF, sys.executable, "-m", "tests.families.offline", str(tmp_path), *folders]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB_OFFLINE")}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout.splitlines()[-1])
    assert saw["outside"] == "ENETUNREACH"
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
