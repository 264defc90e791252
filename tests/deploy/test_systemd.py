"""The unit: judged by systemd itself, and consistent with the server that it starts."""

from __future__ import annotations

import configparser
import socket

import pytest

from app.serve.processes.watch import STOP_THE_SERVER
from tests.deploy.reading import DEFAULTS, DEPLOY, GRACE_S, program, run, unknown_settings
from tests.service.conftest import wait_for

UNIT = DEPLOY / "systemd" / "forklift.service"
ENVIRONMENT = DEPLOY / "systemd" / "forklift.env"


@pytest.fixture
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return parser["Service"]


@pytest.fixture
def unit_here(tmp_path):
    """The unit with a program that this machine has."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/forklift/bin/forklift", "/bin/true"))
    return unit


def test_systemd_finds_nothing_to_complain_about(unit_here):
    assert run(program("systemd-analyze"), "verify", unit_here) == ""


def test_systemd_calls_the_service_protected(unit_here):
    """On its scale of 0 to 10, where 10 is without any protection."""
    run(program("systemd-analyze"), "security", "--offline=true", "--threshold=20", unit_here)


def test_the_service_is_killed_only_after_the_drain(service):
    assert float(service["TimeoutStopSec"]) > DEFAULTS.drain_timeout_s + GRACE_S
    assert service["KillSignal"] == "SIGTERM"


def test_a_wrong_setting_is_not_tried_again(service):
    assert int(service["RestartPreventExitStatus"]) == STOP_THE_SERVER


def test_every_environment_name_is_a_setting():
    assert not unknown_settings(UNIT.read_text() + ENVIRONMENT.read_text())


def test_the_server_tells_systemd_that_it_listens(start_server, tmp_path, service):
    assert service["Type"] == "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(30)
        server = start_server({"NOTIFY_SOCKET": str(tmp_path / "notify")}, workers=1)
        assert b"READY=1" in listener.recv(4096)
        wait_for(lambda: server.get("/livez")[0] == 200, "an answer")
