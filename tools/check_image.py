"""Checks a built image the way it will be run: not root, nothing writable but /tmp, process 1, a drain.

Run as ``python -m tools.check_image [IMAGE] [--engine 'podman ...'] [--option ...] [--host-network]``
with docker, podman or what takes the same commands. Prints a line per check, then one JSON line;
exit code 1 where a check failed. Needs the standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 180.0
FORBIDDEN_PROGRAMS = ("gcc", "cc", "g++", "c++", "clang", "ld", "make", "nvcc")
STREAM = {"prompt": "def f(", "max_new_tokens": 200, "ignore_eos": True, "stream": True}


class Engine:
    """A container engine's command line."""

    def __init__(self, command: str, image: str):
        self._command = shlex.split(command)
        self.image = image

    def call(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError(
                f"{' '.join(self._command)} {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.call("image", "inspect", self.image).stdout)[0]
        return found


class Container:
    """The image, running with a read-only root."""

    def __init__(self, engine: Engine, options: list[str], is_on_host: bool):
        self._engine = engine
        self.port = unused_port()
        place = (
            ["--network", "host", "--env", f"FORKLIFT_BIND=127.0.0.1:{self.port}"]
            if is_on_host
            else ["--publish", f"127.0.0.1:{self.port}:5000"]
        )
        hardening = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        done = engine.call("run", "--detach", *hardening, *place, *options, engine.image)
        self._id = done.stdout.strip().splitlines()[-1]

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self._engine.call("exec", self._id, *command, check=False)

    def request(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        return connection.getresponse()

    def is_running(self) -> bool:
        return self._engine.call("inspect", "--format", "{{.State.Running}}", self._id).stdout.strip() == "true"

    def terminate(self) -> None:
        self._engine.call("kill", "--signal", "TERM", self._id)

    def wait(self) -> int:
        return int(self._engine.call("wait", self._id).stdout.strip().splitlines()[-1])

    def log(self) -> str:
        done = self._engine.call("logs", self._id, check=False)
        return done.stdout + done.stderr

    def remove(self) -> None:
        self._engine.call("rm", "--force", self._id, check=False)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Report:
    """What was found, told as it is found."""

    def __init__(self) -> None:
        self.results: dict[str, bool] = {}
        self.figures: dict[str, float] = {}

    def check(self, name: str, is_right: bool, found: object) -> None:
        self.results[name] = is_right
        print(f"{'ok  ' if is_right else 'FAIL'} {name}: {found}", flush=True)

    def measure(self, name: str, value: float) -> None:
        self.figures[name] = round(value, 2)


def check_description(image: dict[str, Any], report: Report) -> None:
    """What the image says of itself."""
    config = image["Config"]
    report.measure("size_mb", image["Size"] / 1e6)
    report.check("the user is not root", config.get("User", "").split(":")[0] not in ("", "0", "root"), config["User"])
    command = config["Cmd"]
    report.check("the command is in exec form", command[0] not in ("/bin/sh", "sh"), command)
    test = (config.get("Healthcheck") or image.get("Healthcheck") or {}).get("Test", ["NONE"])
    report.check("the health check is in exec form", test[0] == "CMD", test)


def check_inside(container: Container, report: Report) -> None:
    """What a process in the container can do and find."""
    who = container.execute(
        "python", "-c", "import os; print(os.getuid(), open('/proc/1/cmdline').read().split('\\0')[1])"
    )
    uid, _, first = who.stdout.strip().partition(" ")
    report.check(
        "process 1 is the server, and not root",
        uid.isdigit() and uid != "0" and "gunicorn" in first,
        who.stdout.strip(),
    )
    written = container.execute("python", "-c", "open('/srv/forklift/x', 'w')")
    report.check(
        "the root file system is read-only", "Read-only file system" in written.stderr, written.stderr.strip()[-60:]
    )
    look = f"import shutil; print([p for p in {FORBIDDEN_PROGRAMS} if shutil.which(p)])"
    found = container.execute("python", "-c", look).stdout.strip()
    report.check("no compiler is inside", found == "[]", found)


def check_answers(container: Container, report: Report) -> None:
    """The health check passes, and a completion comes."""
    started_s = time.monotonic()
    is_ready = wait_until(lambda: is_healthy(container))
    report.measure("ready_s", time.monotonic() - started_s)
    report.check("the health check passes", is_ready, f"after {report.figures['ready_s']} s")
    response = container.request("POST", "/complete", {"prompt": "import os\n\ndef file_size(path):\n"})
    text = response.read().decode()
    report.check("/complete answers", response.status == 200 and "completion" in text, text[:80])


def check_drain(container: Container, report: Report) -> None:
    """SIGTERM in the middle of a stream: the stream ends well, the container with 0."""
    response = container.request("POST", "/complete", STREAM)
    first = response.readline()
    started_s = time.monotonic()
    container.terminate()
    rest = response.read()
    code = container.wait()
    report.measure("drain_s", time.monotonic() - started_s)
    report.check(
        "a stream that runs at SIGTERM ends well", first != b"" and rest.endswith(b"data: [DONE]\n\n"), rest[-16:]
    )
    report.check("the exit code is 0", code == 0, f"{code}, {report.figures['drain_s']} s after SIGTERM")


def is_healthy(container: Container) -> bool:
    """Raise RuntimeError once the container has ended: it will not get better."""
    if not container.is_running():
        raise RuntimeError(f"the container ended with code {container.wait()}")
    return container.execute("python", "-m", "app.serve.probe").returncode == 0


def wait_until(look: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.5)
    return True


@contextmanager
def running(engine: Engine, options: list[str], is_on_host: bool) -> Iterator[Container]:
    container = Container(engine, options, is_on_host)
    try:
        yield container
    except Exception:
        print(container.log(), file=sys.stderr)
        raise
    finally:
        container.remove()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", default="forklift")
    parser.add_argument("--engine", default="docker", help="docker, podman, with options before the command")
    parser.add_argument("--option", action="append", default=[], help="an option for `run`; may be repeated")
    parser.add_argument("--host-network", action="store_true", help="no port mapping: bind to loopback on the host")
    given = parser.parse_args()
    engine, report = Engine(given.engine, given.image), Report()
    check_description(engine.describe(), report)
    with running(engine, given.option, given.host_network) as container:
        check_answers(container, report)
        check_inside(container, report)
        check_drain(container, report)
    print(json.dumps({"image": given.image, **report.figures, "failed": sum(not ok for ok in report.results.values())}))
    return 0 if all(report.results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
