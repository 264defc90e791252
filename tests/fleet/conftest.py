"""Real servers that announce themselves in a real ZooKeeper, and callers that find them there."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from app.client import Client, ClientError, StreamEndedError
from app.client.discovery.registry_address import registry_address
from app.client.discovery.zookeeper_link import ZooKeeperLink
from tests.service.conftest import LOAD_PATIENCE_S, StartServer, SteppingServer, server_starter
from tests.waiting import wait_until
from tests.zookeeper import ZooKeeper, missing

AT_ONCE = 3
# Of a call in these tests: far more than any takes, so that one that is late has failed.
CALL_LIMIT_S = 60.0


@pytest.fixture
def session_s() -> float:
    """Long enough for a busy machine: where nothing fails, no session ends."""
    return 6.0


@pytest.fixture
def zookeeper(tmp_path: Path) -> Iterator[ZooKeeper]:
    if reason := missing():
        pytest.skip(reason)
    pytest.importorskip("kazoo")
    folder = tmp_path / "zookeeper"
    folder.mkdir()
    found = ZooKeeper(folder)
    found.start()
    yield found
    found.stop(signal.SIGKILL)


class FleetServer(SteppingServer):
    """A server whose processes a test ends and stops all at once."""

    def processes(self) -> list[psutil.Process]:
        """The master first."""
        master = psutil.Process(self.process.pid)
        return [master, *master.children(recursive=True)]

    def signal_all(self, number: signal.Signals) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal_all(signal.SIGCONT)
        super().stop()

    @property
    def server_id(self) -> str:
        return str(self.get("/readyz")[1]["registry"]["id"])

    def metric(self, name: str) -> float:
        connection = self.http_connection(30)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"forklift_{name} ")))


@pytest.fixture
def start_fleet(tmp_path: Path, zookeeper: ZooKeeper, session_s: float) -> Iterator[Callable[..., list[FleetServer]]]:
    """Starts so many servers; they are ready and announced."""
    folder = tmp_path / "servers"
    folder.mkdir()
    starter = server_starter(folder, FleetServer)
    start_one: StartServer = next(starter)

    def start(
        num_servers: int, environ: dict[str, str] | None = None, *, is_awaited: bool = True, **settings: object
    ) -> list[FleetServer]:
        url = zookeeper.url(session_s=session_s)
        servers: list[FleetServer] = []
        while len(servers) < num_servers:
            # More of them would not be up in time on two cores.
            num = min(AT_ONCE, num_servers - len(servers))
            begun = [start_one(environ, num_ready=0, registry=url, **settings) for _ in range(num)]
            for server in begun:
                server.wait_until_listening()
                server.wait_until_ready(1)
                if is_awaited:
                    wait_until(lambda server=server: server.get("/readyz")[1]["registry"]["connected"], LOAD_PATIENCE_S)
            servers += begun
        return servers

    yield start
    next(starter, None)


@pytest.fixture
def somebody(zookeeper: ZooKeeper, session_s: float) -> Iterator[ZooKeeperLink]:
    """Somebody else in ZooKeeper."""
    found = ZooKeeperLink(registry_address(zookeeper.url(session_s=session_s)))
    wait_until(lambda: found.is_connected)
    yield found
    found.close()


@pytest.fixture
def discover(zookeeper: ZooKeeper, session_s: float) -> Iterator[Callable[..., Client]]:
    """Makes clients, and closes them."""
    clients = []

    def make(**options: object) -> Client:
        options = {"timeout_s": CALL_LIMIT_S, **options}
        clients.append(Client.discover(zookeeper.url(session_s=session_s), **options))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


class Callers:
    """Threads that call, one call after the other, until told to end; a context that waits for them."""

    def __init__(self, client: Client, num_threads: int = 4, num_tokens: int = 10, stream_every: int = 3):
        self.client, self.failures, self.num_answers = client, [], 0
        # Streams that ended behind their first event: nobody can make those again for the caller.
        self.num_cut = 0
        self.longest_s = 0.0
        self._num_tokens, self._stream_every = num_tokens, stream_every
        self._lock, self._ending = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in range(num_threads)]

    def __enter__(self) -> Callers:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.set()
        for one in self._threads:
            one.join(2 * CALL_LIMIT_S)

    def until(self, num_more: int, limit_s: float = CALL_LIMIT_S) -> None:
        """So many more answers came."""
        wanted = self.num_answers + num_more
        wait_until(lambda: self.num_answers >= wanted, limit_s)

    def _run(self, number: int) -> None:
        while not self._ending.is_set():
            number += 1
            begun_s = time.monotonic()
            try:
                self._call(is_stream=number % self._stream_every == 0)
            except ClientError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            with self._lock:
                self.num_answers += 1
                self.longest_s = max(self.longest_s, time.monotonic() - begun_s)

    def _call(self, *, is_stream: bool) -> None:
        text = self._streamed() if is_stream else self.client.complete("p", max_new_tokens=self._num_tokens).text
        if text is not None and text != "x" * self._num_tokens:
            self.failures.append(f"the text {text!r}")

    def _streamed(self) -> str | None:
        """The text; None where the stream was cut."""
        text = ""
        try:
            for piece in self.client.complete("p", max_new_tokens=self._num_tokens, stream=True):
                text += piece.text
        except StreamEndedError:
            assert text
            with self._lock:
                self.num_cut += 1
            return None
        return text

    def report(self, name: str) -> None:
        """One line of figures."""
        found = {
            "answers": self.num_answers,
            "made_again": self.client._transport.num_made_again,
            "cut_streams": self.num_cut,
            "failed": len(self.failures),
            "longest_s": round(self.longest_s, 2),
        }
        print(f"{name}: {json.dumps(found)} {dict(Counter(one.partition(':')[0] for one in self.failures)) or ''}")


@pytest.fixture
def states(discover: Callable[..., Client]) -> Callable[[], dict[str, str]]:
    """What the registry says of each server, as a client sees it."""
    client = discover()

    def look() -> dict[str, str]:
        listed = client._transport._servers._told or ()
        return {one.id: one.state for one in listed}

    return look
