"""A real ZooKeeper on a loopback port: Debian's package, as a process of its own that a test may stop and start."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.waiting import wait_until

JAR = Path("/usr/share/java/zookeeper.jar")
# Of a tick; ZooKeeper grants sessions of two ticks at least.
TICK_MS = 500
COMMON = """\
tickTime={tick}
dataDir={folder}/data
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=ruok,srvr
"""
PLAIN = """\
clientPortAddress=127.0.0.1
clientPort={port}
"""


def missing() -> str | None:
    """Why there is no ZooKeeper here; None where there is one."""
    if shutil.which("java") is None:
        return "there is no java"
    return None if JAR.is_file() else f"there is no {JAR}: apt-get install zookeeper"


class ZooKeeper:
    """Keeps its data and port over a restart."""

    def __init__(self, folder: Path, config: str = PLAIN, jars: Sequence[Path] = ()):
        self._folder, self._jars = folder, [JAR, *jars]
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        (folder / "zoo.cfg").write_text((COMMON + config).format(tick=TICK_MS, folder=folder, port=self.port))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/forklift", session_s: float = 1.5) -> str:
        return f"zookeeper://{self.host}{path}?session_s={session_s}"

    def start(self, *, is_awaited: bool = True) -> None:
        java = ["java", "-Xmx64m", "-XX:+UseSerialGC", "-Dlog4j.configuration=none"]
        path = ":".join(map(str, self._jars))
        main = ["-cp", path, "org.apache.zookeeper.server.ZooKeeperServerMain", str(self._folder / "zoo.cfg")]
        with (self._folder / "zookeeper.log").open("ab") as log:
            self._process = subprocess.Popen([*java, *main], stdout=log, stderr=subprocess.STDOUT)
        if is_awaited:
            wait_until(self._is_well)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def forget(self) -> None:
        """Start it empty the next time."""
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def last_change(self) -> int:
        """The number of the last write or session, of all that ever were."""
        found = re.search(rb"Zxid: (0x[0-9a-f]+)", self._told(b"srvr"))
        assert found is not None
        return int(found[1], 16)

    def _told(self, word: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(word)
            return b"".join(iter(lambda: sock.recv(4096), b""))

    def _is_well(self) -> bool:
        with suppress(OSError):
            return self._told(b"ruok") == b"imok"
        return False
