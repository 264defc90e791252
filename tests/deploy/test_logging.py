"""The example of shipping logs, run by a real rsyslogd on a real server's lines."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.deploy.reading import DEPLOY, program, run
from tests.service.conftest import wait_for
from tests.service.crowd import completion, send_all

LOG_FILE = "/var/log/forklift/forklift.log"


@pytest.fixture
def collector():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


@pytest.fixture
def configuration(tmp_path, collector) -> Path:
    """The example with a log file and a port of this test."""
    text = (DEPLOY / "logging" / "rsyslog.conf").read_text()
    assert LOG_FILE in text
    text = text.replace(LOG_FILE, str(tmp_path / "forklift.log")).replace("5170", str(collector.getsockname()[1]))
    file = tmp_path / "rsyslog.conf"
    file.write_text(f'global(workDirectory="{tmp_path}")\n{text}')
    return file


def test_rsyslog_accepts_the_example(configuration):
    assert "End of config validation run" in run(program("rsyslogd"), "-N1", "-f", configuration)


def test_each_request_arrives_as_one_json_object(configuration, collector, tmp_path, start_stepping):
    rsyslogd = program("rsyslogd")
    server = start_stepping(workers=1)
    send_all(server.port, [completion(3, "shipped-1")])
    wait_for(lambda: "shipped-1" in server.log(), "the log line")
    (tmp_path / "forklift.log").write_text(server.log() + "last words of an interpreter\n")
    command = [rsyslogd, "-n", "-f", str(configuration), "-i", str(tmp_path / "pid")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        connection, _ = collector.accept()
        with connection, connection.makefile() as lines:
            connection.settimeout(30)
            arrived = [json.loads(lines.readline()) for _ in range(server.log().count("\n") + 1)]
    finally:
        process.terminate()
        process.wait(10)
    [line] = [line for line in arrived if line.get("request_id") == "shipped-1"]
    assert (line["event"], line["status"], line["completion_tokens"]) == ("request", 200, 3)
    assert line["service"] == "forklift"
    assert line["host"]
    assert arrived[-1]["msg"] == "last words of an interpreter"
