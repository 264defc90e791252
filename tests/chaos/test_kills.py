"""Workers are killed under load, in the middle of streams."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time

import pytest

from tests.service.conftest import wait_for
from tests.service.crowd import completion

pytestmark = pytest.mark.chaos

NUM_WORKERS = 4
NUM_KILLS = 20
NUM_STREAMS = 4
NUM_CLIENTS = 3
LABELS = "a,b,c,d"


class Load(threading.Thread):
    """Short requests one after another; ``num_cut`` connections ended without an answer."""

    def __init__(self, server):
        super().__init__()
        self._server = server
        self._is_over = threading.Event()
        self.refusals: list[str] = []
        self.num_answers = self.num_cut = 0

    def run(self) -> None:
        while not self._is_over.is_set():
            try:
                status, answer = self._server.request(
                    "POST", "/complete", b'{"prompt": "p"}', {"Content-Type": "application/json"}
                )
                self.num_answers += 1
                if status != 200:
                    self.refusals.append(answer["error"]["code"])
            except (OSError, http.client.HTTPException):
                self.num_cut += 1
            time.sleep(0.02)

    def end(self) -> None:
        self._is_over.set()
        self.join()


class Reader(threading.Thread):
    """Reads one stream to its end; ``slot`` is known once the head is there."""

    def __init__(self, server):
        super().__init__()
        self._client = server.connect(completion(100, stream=True))
        self.data = b""
        self.start()

    def run(self) -> None:
        try:
            while piece := self._client.recv(65536):
                self.data += piece
        except OSError:
            pass
        self._client.close()

    @property
    def slot(self) -> int:
        wait_for(lambda: b"\r\n\r\n" in self.data, "the head of a stream")
        return int(self.data.partition(b"X-Worker: ")[2].partition(b"\r\n")[0])


def test_twenty_kills_leave_slots_and_counters_right_and_others_alone(start_stepping):
    environ = {"CUDA_VISIBLE_DEVICES": LABELS, "STEP_TOKEN_S": "0.01"}
    server = start_stepping(environ, workers=NUM_WORKERS, num_ready=NUM_WORKERS, max_batch_size=4, default_new_tokens=2)
    clients = [Load(server) for _ in range(NUM_CLIENTS)]
    for client in clients:
        client.start()
    num_cut_streams = 0
    try:
        for kill in range(NUM_KILLS):
            num_cut_streams += kill_in_streams(server, kill % NUM_WORKERS)
    finally:
        for client in clients:
            client.end()
    wait_for(lambda: server.in_hand() == (0, 0), "the counters")
    num_answers, num_cut = sum(client.num_answers for client in clients), sum(client.num_cut for client in clients)
    print(f"{NUM_KILLS} kills: {num_answers} answers, {num_cut} connections and {num_cut_streams} streams cut")
    assert [refusal for client in clients for refusal in client.refusals] == []
    # A kill can cut no more than one connection of each client.
    assert num_cut <= NUM_KILLS * NUM_CLIENTS
    assert num_cut_streams >= NUM_KILLS / 2


def kill_in_streams(server, slot: int) -> int:
    """Kill the worker of ``slot`` while streams run; returns how many that cut. The others end well."""
    readers = [Reader(server) for _ in range(NUM_STREAMS)]
    slots = [reader.slot for reader in readers]
    pid = rows_of(server)[slot]["pid"]
    os.kill(pid, signal.SIGKILL)
    for reader in readers:
        reader.join()
    for reader_slot, reader in zip(slots, readers, strict=True):
        assert reader_slot == slot or b"[DONE]" in reader.data
    rows = wait_for(lambda: all_ready(server, pid), "a new worker", 90)
    assert [row["slot"] for row in rows] == list(range(NUM_WORKERS))
    assert [",".join(row["gpus"]) for row in rows] == LABELS.split(",")
    assert len({row["pid"] for row in rows}) == NUM_WORKERS
    return sum(b"[DONE]" not in reader.data for reader in readers)


def rows_of(server):
    """The board; asked again where the worker that was asked has just been killed."""

    def ask():
        try:
            return server.rows()
        except (OSError, http.client.HTTPException):
            return None

    return wait_for(ask, "an answer")


def all_ready(server, killed_pid: int):
    rows = rows_of(server)
    is_ready = all(row["state"] == "ready" and row["pid"] not in (None, killed_pid) for row in rows)
    return rows if is_ready else None
