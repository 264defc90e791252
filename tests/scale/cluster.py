"""A Ray cluster on one machine, in a network namespace: nodes on 127.0.0.2 and up, brought up by ``forklift scale``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

from app.cluster.machine.cluster_view import ReplicaView, look
from app.cluster.machine.head import Head
from app.cluster.machine.ray_node import RayNode
from app.cluster.scale_plan import ScalePlan
from app.cluster.tokens import find_token
from tests.service.conftest import REPOSITORY, wait_for

PORT = 8000
HEAD_PORT = 6379
START_LIMIT_S = 400
OBJECT_STORE_BYTES = 80_000_000


class Cluster:
    """Node 0 is the head; each has a folder of its own, as if it were a machine. One replica fits on each node."""

    def __init__(self, folder: Path, **settings: Any):
        self.folder = folder
        self.url = f"http://127.0.0.1:{PORT}"
        self.fault_file = folder / "fault"
        # CPUs of each node, which is as many replicas as find room there.
        self._node_cpus = settings.pop("node_cpus", ())
        self._settings = settings
        self._num_nodes = 0

    # nodes

    def up(self, replicas: str = "1", **options: object) -> None:
        """The head, or another deployment on it."""
        options = {"replicas": replicas, "timeout": START_LIMIT_S, "port": PORT, "proxies": "head", **options}
        self._num_nodes = max(self._num_nodes, 1)
        self.forklift(0, "up", **options, **self._of_node(0))

    def start(self, num_nodes: int, replicas: str, options: dict[str, object]) -> None:
        """The head and, while it waits for its replicas, the nodes that they may need."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.up, replicas, **options)
            wait_for(lambda: waiting.done() or self.head().is_there(), "the head", START_LIMIT_S)
            for _ in range(num_nodes - 1):
                self.join()
            waiting.result()

    def join(self) -> int:
        """One more node; returns its number."""
        number, self._num_nodes = self._num_nodes, self._num_nodes + 1
        self.forklift(
            number, "up", join=f"{self.address(0)}:{HEAD_PORT}", timeout=START_LIMIT_S, **self._of_node(number)
        )
        return number

    def forget_head(self) -> None:
        """Ray finds the head that died in the command lines of its nodes, which on other machines it would not."""
        (self.folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)

    def change(self, **settings: object) -> None:
        """For the next ``up``."""
        self._settings = self._settings | settings

    def down(self) -> None:
        """End every node, the head last."""
        for number in reversed(range(self._num_nodes)):
            self.forklift(number, "down")

    def address(self, number: int) -> str:
        return f"127.0.0.{number + 2}"

    def node(self, number: int) -> RayNode:
        return RayNode(self._cache(number) / "scale")

    def kill_node(self, number: int) -> int:
        """SIGKILL for all processes of a node; how many there were."""
        record = self.node(number).record()
        assert record is not None
        root = psutil.Process(record.pid)
        tree = [root, *root.children(recursive=True)]
        for process in tree:
            process.kill()
        psutil.wait_procs(tree, 30)
        return len(tree)

    def kill(self, number: int, name: str) -> None:
        """SIGKILL for one process of a node, by a part of its command line."""
        record = self.node(number).record()
        assert record is not None
        found = [one for one in psutil.Process(record.pid).children(recursive=True) if name in " ".join(one.cmdline())]
        assert found, f"no {name}"
        found[0].kill()

    def _of_node(self, number: int) -> dict[str, object]:
        cpus = self._node_cpus[number] if self._node_cpus else 1
        return {"address": self.address(number), "node-cpus": cpus, "object-store-bytes": OBJECT_STORE_BYTES}

    def _cache(self, number: int) -> Path:
        return self.folder / f"node{number}"

    # what it tells

    def forklift(self, number: int, command: str, *arguments: str, **options: object) -> str:
        """``forklift scale`` on that node; its output."""
        flags = [f"--{name}={value}" for name, value in options.items()]
        done = subprocess.run(
            [*self._prefix(number), sys.executable, "-m", "app.cli", "scale", command, *arguments, *flags],
            cwd=REPOSITORY,
            env=self._environ(number),
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S + 60,
        )
        assert done.returncode in (0, 1 if command == "status" else 0), done.stdout + done.stderr + self.logs()
        return done.stdout

    def _prefix(self, _number: int) -> list[str]:
        """What a command for that node is run by."""
        return []

    def _environ(self, number: int) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FORKLIFT_", "RAY_"))}
        named = {f"FORKLIFT_{name.upper()}": str(value) for name, value in self._settings.items()}
        own = {
            "HOME": str(self.folder),
            "FORKLIFT_CACHE_DIR": str(self._cache(number)),
            "FORKLIFT_DEVICE": "cpu",
            "FORKLIFT_COMPILE": "never",
            "FAULT_FILE": str(self.fault_file),
            "PYTHONPATH": str(REPOSITORY),
            # Ray's folders and sockets: a path of pytest's would be too long for a socket.
            "RAY_TMPDIR": str(self.folder),
        }
        return clean | named | own | self._of_haproxy(number)

    def _of_haproxy(self, number: int) -> dict[str, str]:
        """Ports of its own for each node's HAProxy; they share the one for callers, as the kernel allows."""
        ports = {"METRICS_PORT": 9101 + number, "STATS_PORT": 8404 + number}
        return {f"RAY_SERVE_HAPROXY_{name}": str(port) for name, port in ports.items()}

    def replicas(self) -> list[ReplicaView]:
        """Those that serve."""
        head = self.head()
        return [one for one in look(head.serve_details(), head.nodes()).replicas if one.state == "RUNNING"]

    def head(self) -> Head:
        return Head("http://127.0.0.1:8265", find_token({"HOME": str(self.folder)}))

    def deploy_with_faults(self, plan: ScalePlan) -> None:
        """The same, with an engine in which ``fault_file`` orders faults."""
        config = plan.config()
        config["applications"][0]["import_path"] = "tests.scale.faulty_deployment:build"
        self.head().deploy(config)

    def wait_until_serving(
        self, num_replicas: int, patience_s: float = 120.0, without: set[str] | None = None
    ) -> float:
        """Seconds until so many other replicas than ``without`` answer."""
        begun_s = time.monotonic()
        gone = without or set()
        wait_for(lambda: self._num_answering(gone) >= num_replicas, f"{num_replicas} replicas", patience_s)
        return time.monotonic() - begun_s

    def _num_answering(self, gone: set[str]) -> int:
        running = {one.instance for one in self.replicas()} - gone
        return len(running & self.instances())

    def instances(self, num_looks: int = 12) -> set[str]:
        """The replicas that answer behind the proxy."""
        found = set()
        for _ in range(num_looks):
            try:
                answer = requests.get(f"{self.url}/readyz", timeout=10)
            except requests.RequestException:
                continue
            if answer.status_code == 200:
                found.add(answer.headers.get("X-Instance", ""))
        return found

    def logs(self) -> str:
        """The ends of what Ray said on each node."""
        files = sorted(self.folder.glob("node*/scale/ray.log"))
        return "".join(f"\n{file}:\n{file.read_text(errors='replace')[-2000:]}" for file in files)


@contextmanager
def cluster(
    folder: Path, num_nodes: int, replicas: str, options: dict[str, object], **settings: Any
) -> Iterator[Cluster]:
    """``num_nodes`` with so many replicas, brought up with ``options``; ended whatever happens."""
    made = Cluster(folder, **settings)
    try:
        made.start(num_nodes, replicas, options)
        yield made
    finally:
        made.down()


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
