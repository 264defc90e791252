"""Follows README.md word by word: a fresh clone, an empty environment, its commands in its order.

Run as ``python -m tools.follow_readme``. Measures the time from ``make run`` to the first answer and ends the server
whatever happens. Blocks that need what is not there (a model of the reader's own, Docker) are named as left out.
What is not committed is not in the clone. Exit code 1 where a command fails or no answer comes in time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.pages import REPOSITORY, Block, blocks

READY_URL = "http://127.0.0.1:5000/readyz"
# What decides where packages come from and how the network is reached; all else is left behind.
KEPT_PREFIXES = ("PIP_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
STOP_WITHIN_S = 60


class FollowError(Exception):
    """The README did not work; the message says where."""


def empty_environment(home: Path) -> dict[str, str]:
    """Nothing of the caller's but the programs and the way to the package index."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT_PREFIXES)}
    return kept | {"PATH": clean_path(), "HOME": str(home), "LANG": "C.UTF-8", "PIP_NO_CACHE_DIR": "1"}


def clean_path() -> str:
    """The search path without the environment that this program itself may run in."""
    own = Path(sys.prefix) / "bin"
    return os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != own)


def clone(folder: Path) -> Path:
    """A clone of the last commit."""
    target = folder / "forklift"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(target)], check=True)
    return target


@contextmanager
def serving(command: str, folder: Path, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server's command in a session of its own; all of that session is ended afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end_session(process)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to every process of the session, SIGKILL to what is left after a minute."""
    end_s = time.monotonic() + STOP_WITHIN_S
    for pid in session_members(process.pid):
        send(pid, signal.SIGTERM)
    while (members := session_members(process.pid)) and time.monotonic() < end_s:
        process.poll()
        time.sleep(0.2)
    for pid in members:
        send(pid, signal.SIGKILL)
    process.wait()


def session_members(session: int) -> list[int]:
    """Processes of the session that have not ended."""
    listed = subprocess.run(["ps", "-eo", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, sess, state in rows if int(sess) == session and not state.startswith("Z")]


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until_ready(process: subprocess.Popen[bytes], limit_s: float, log: Path) -> None:
    """Return when the server can take work. Raises ``FollowError`` where it ends or takes too long."""
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise FollowError(f"the server ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        asked = subprocess.run(["curl", "-sf", "-o", os.devnull, READY_URL], check=False)
        if asked.returncode == 0:
            return
        time.sleep(0.5)
    raise FollowError(f"not ready after {limit_s:g} s:\n{log.read_text()[-3000:]}")


def run_commands(block: Block, folder: Path, environ: dict[str, str]) -> str:
    """What the commands of a block print. Raises ``FollowError`` where one fails or answers an error."""
    script = f'curl() {{ command curl -sS --fail-with-body "$@"; }}\nset -e\n{block.text}'
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FollowError(f"line {block.line}: exit code {done.returncode}\n{block.text}{done.stdout}{done.stderr}")
    return done.stdout


def follow(page: Path, limit_s: float, folder: Path, python: str | None) -> dict[str, float | int]:
    """Do what the page says; returns the measured times. Raises ``FollowError``."""
    environ = empty_environment(folder) | ({} if python is None else {"PYTHON": python})
    checkout = clone(folder)
    todo = [block for block in blocks((checkout / page).read_text(encoding="utf-8")) if block.kind != "answer"]
    server = next(block for block in todo if block.mark == "serve")
    asked = [block for block in todo if block.kind == "run"]
    for block in todo:
        if block is not server and block not in asked:
            print(f"left out, line {block.line} ({block.mark}): {block.text.strip().splitlines()[0]}")
    started_s = time.monotonic()
    with serving(server.text, checkout, environ, folder / "server.log") as process:
        wait_until_ready(process, limit_s, folder / "server.log")
        ready_s = time.monotonic() - started_s
        first_s = None
        for block in asked:
            print(f"$ {block.text.strip()}\n{run_commands(block, checkout, environ).strip()[:400]}")
            first_s = first_s or time.monotonic() - started_s
    if first_s is None:
        raise FollowError(f"{page} asks nothing")
    return {"ready_s": round(ready_s, 1), "first_answer_s": round(first_s, 1), "num_commands": len(asked)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=Path("README.md"), help="page to follow (README.md)")
    parser.add_argument("--limit-s", type=float, default=180.0, help="longest time to the first answer (180)")
    parser.add_argument("--python", help="interpreter that make is told to use (its own choice)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="forklift-readme-"))
    try:
        times = follow(options.page, options.limit_s, folder, options.python)
    except FollowError as error:
        print(f"{options.page}: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"from the server's command to the first answer: {times['first_answer_s']} s")
    print(json.dumps(times | {"num_cores": os.cpu_count()}))
    return 0 if times["first_answer_s"] <= options.limit_s else 1


if __name__ == "__main__":
    sys.exit(main())
