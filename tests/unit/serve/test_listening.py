"""Whether the addresses can be listened on is known before anything starts, in one line that names the setting."""

from __future__ import annotations

import os
import socket

import pytest

from app.core.errors import SettingsError
from app.serve.connections.listening import check_addresses


def line_of(address: object) -> str:
    with pytest.raises(SettingsError) as raised:
        check_addresses([address])
    assert str(raised.value).startswith("FORKLIFT_BIND: ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def listener():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def test_a_port_that_is_taken_is_named_with_another_one(listener):
    port = listener.getsockname()[1]
    line = line_of(("127.0.0.1", port))
    assert f"127.0.0.1:{port} is in use by another program" in line
    assert f"such as 127.0.0.1:{port + 1}" in line or port == 65535


def test_an_address_of_another_machine_is_named():
    assert "192.0.2.1 is no address of this machine" in line_of(("192.0.2.1", 0))


def test_a_free_port_passes_and_is_free_afterwards():
    check_addresses([("127.0.0.1", 0), ("::1", 0), 3])


def test_a_socket_needs_a_folder_that_is_there(tmp_path):
    assert "is no folder" in line_of(str(tmp_path / "none" / "f.sock"))
    (tmp_path / "file").touch()
    assert "is there and is no socket" in line_of(str(tmp_path / "file"))


def test_a_socket_that_somebody_serves_is_left_to_them(tmp_path):
    path = tmp_path / "f.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        assert "is in use by another program" in line_of(str(path))
    check_addresses([str(path)])


def test_nothing_is_asked_where_sockets_are_handed_over(listener, monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    check_addresses([listener.getsockname()])
