"""What one server does in a real ZooKeeper; slow for the start of its processes."""

from __future__ import annotations

import json
import signal
import threading
import time

import psutil
import pytest

from app.client import Client, ServerEntry
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_server_comes_works_in_silence_and_goes(zookeeper, start_fleet, discover, states):
    (server,) = start_fleet(1, workers=2, zone="r1", max_queue=6)
    client = discover()
    wait_until(lambda: states() == {server.server_id: "ready"})
    (entry,) = client.servers()
    assert entry == ServerEntry(
        server.server_id,
        f"http://127.0.0.1:{server.port}",
        "ready",
        ("forklift-demo",),
        ("generate",),
        2 + 6,
        100,
        "r1",
        entry.version,
    )
    client.complete("p", max_new_tokens=1)
    before, writes = zookeeper.last_change(), server.metric("registry_writes_total")
    for _ in range(100):
        client.complete("p", max_new_tokens=2)
    # Nobody wrote anything, and no session came or went.
    assert zookeeper.last_change() == before
    assert server.metric("registry_writes_total") == writes
    assert server.metric("registry_connected") == 1
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    wait_until(lambda: states() == {})


def test_another_worker_speaks_when_the_first_is_killed_or_stopped(zookeeper, start_fleet, states, somebody):
    (server,) = start_fleet(1, workers=2)
    wait_until(lambda: list(states().values()) == ["ready"])
    (name,) = somebody.children("/forklift/servers")

    def speakers():
        return somebody.children("/forklift/servers")

    for number in (signal.SIGKILL, signal.SIGSTOP):
        server.wait_until_ready(2)
        before = speakers()
        worker = psutil.Process(leader_of(server, zookeeper.port))
        worker.send_signal(number)
        wait_until(lambda before=before: speakers() != before and len(speakers()) == 1)
        wait_until(lambda: states() == {server.server_id: "ready"})
        if number == signal.SIGSTOP:
            worker.send_signal(signal.SIGCONT)
            # It finds that it was passed over, and makes no second node.
            time.sleep(3.0)
    assert len(speakers()) == 1
    assert speakers() != [name]


def leader_of(server, port):
    """The worker that has a connection to ZooKeeper."""
    (found,) = [
        one.pid
        for one in server.processes()[1:]
        if any(connection.raddr and connection.raddr.port == port for connection in one.net_connections("tcp"))
    ]
    return found


def test_a_drain_is_told_before_the_server_goes(start_fleet, discover, states):
    (server,) = start_fleet(1)
    client = discover(max_retries=0)
    wait_until(lambda: list(states().values()) == ["ready"])
    server.gate.touch()
    answers = []
    # A call that runs holds the drain up.
    thread = threading.Thread(target=lambda: answers.append(client.complete("p", max_new_tokens=3).text))
    thread.start()
    wait_until(lambda: server.in_hand() == (1, 0))
    server.signal(signal.SIGTERM)
    wait_until(lambda: list(states().values()) == ["draining"])
    server.gate.unlink()
    thread.join()
    assert answers == ["xxx"]
    assert server.wait_for_exit() == 0
    wait_until(lambda: states() == {})


def test_a_node_that_somebody_removed_or_spoilt_comes_back(start_fleet, states, somebody):
    (server,) = start_fleet(1)
    wait_until(lambda: list(states().values()) == ["ready"])
    (name,) = somebody.children("/forklift/servers")
    somebody.delete(f"/forklift/servers/{name}")
    wait_until(lambda: somebody.children("/forklift/servers") not in ([], [name]))
    wait_until(lambda: states() == {server.server_id: "ready"})


def test_hostile_entries_are_passed_over_with_a_line(start_fleet, discover, states, somebody, caplog):
    (server,) = start_fleet(1)
    wait_until(lambda: list(states().values()) == ["ready"])
    good = {"format": 1, "state": "ready", "places": 1, "weight": 1, "zone": "", "version": "", "grpc": None}
    for data in (
        b"",
        b"\xff" * 100,
        b"[" * 60_000,
        b"x" * 500_000,
        json.dumps({**good, "id": "evil", "http": "file:///etc/passwd"}).encode(),
        json.dumps({**good, "id": "evil", "http": "gopher://127.0.0.1:1"}).encode(),
        json.dumps({**good, "id": "evil", "http": "http://127.0.0.1:1", "models": ["m"] * 5000}).encode(),
    ):
        somebody.make_ephemeral("/forklift/servers/s-evil-", data)
    client = discover()
    assert [client.complete("p", max_new_tokens=1).text for _ in range(5)] == ["x"] * 5
    assert [one.id for one in client.servers()] == [server.server_id]
    assert sum("is passed over" in line.getMessage() for line in caplog.records) >= 7


def test_a_server_starts_and_serves_without_zookeeper_and_joins_when_it_comes(zookeeper, start_fleet, states):
    zookeeper.stop()
    (server,) = start_fleet(1, is_awaited=False)
    assert Client(f"http://127.0.0.1:{server.port}").complete("p", max_new_tokens=2).text == "xx"
    assert server.get("/readyz")[1]["registry"]["connected"] is False
    assert server.metric("registry_connected") == 0
    wait_until(lambda: server.log().count("registry_away") == 1)
    zookeeper.forget()
    zookeeper.start()
    wait_until(lambda: states() == {server.server_id: "ready"})
    zookeeper.stop()
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
