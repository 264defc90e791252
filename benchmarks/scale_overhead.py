"""What Ray Serve's proxy and replica cost beside plain Gunicorn: the same requests to both, in turn, pair by pair.

Run as ``python -m tools.loopback_only python -m benchmarks.scale_overhead`` in an environment with the extra
``scale``; it starts both servers with the same settings, threads and niceness, and ends them. ``--gunicorn`` and
``--scale`` name servers that run already. The last line of the table is throughput: what is more there is a loss.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import requests

from benchmarks.contenders import forklift, running
from benchmarks.report import show

NUM_NEW = 32
# Streams at once, which one replica decodes together.
NUM_AT_ONCE = 8
ONE = {"prompt": "def f(", "max_new_tokens": 1, "temperature": 0, "ignore_eos": True}
STREAMED = ONE | {"max_new_tokens": NUM_NEW, "stream": True}
NUM_RESAMPLES = 2000
START_LIMIT_S = 600
DEMO = Path(__file__).resolve().parents[1] / "app" / "models" / "demo"


def probe(url: str) -> None:
    requests.get(f"{url}/livez", timeout=60).raise_for_status()


def one_token(url: str) -> None:
    requests.post(f"{url}/complete", json=ONE, timeout=60).raise_for_status()


def stream(url: str) -> None:
    with requests.post(f"{url}/complete", json=STREAMED, timeout=60, stream=True) as answer:
        answer.raise_for_status()
        assert answer.content.endswith(b"[DONE]\n\n"), "the stream was cut"


def crowd(url: str) -> None:
    with ThreadPoolExecutor(NUM_AT_ONCE) as pool:
        list(pool.map(stream, [url] * NUM_AT_ONCE))


CROWD = f"{NUM_AT_ONCE} streams of {NUM_NEW} tokens at once"
KINDS: dict[str, Callable[[str], None]] = {
    "/livez": probe,
    "1 token": one_token,
    f"{NUM_NEW} tokens streamed": stream,
    CROWD: crowd,
}
# Both get these; Ray would give a replica one thread for each of its CPUs, and Gunicorn a worker all cores.
SETTINGS = {"FORKLIFT_MAX_BATCH_SIZE": str(NUM_AT_ONCE), "FORKLIFT_MAX_QUEUE": "64", "FORKLIFT_COMPILE": "never"}
THREADS = {"OMP_NUM_THREADS": "1"}


def took_ms(call: Callable[[str], None], url: str) -> float:
    begun_s = time.perf_counter()
    call(url)
    return (time.perf_counter() - begun_s) * 1000


def pairs(call: Callable[[str], None], gunicorn: str, scale: str, num_pairs: int) -> list[tuple[float, float]]:
    """Times of both, each pair in an order of its own."""
    found = []
    for at in range(num_pairs):
        if at % 2:
            second = took_ms(call, scale)
            found.append((took_ms(call, gunicorn), second))
        else:
            first = took_ms(call, gunicorn)
            found.append((first, took_ms(call, scale)))
    return found


def interval(values: list[float], seed: int = 0) -> tuple[float, float]:
    """Where the median lies with 95% confidence, by resampling."""
    chance = random.Random(seed)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(NUM_RESAMPLES))
    return medians[int(0.025 * NUM_RESAMPLES)], medians[int(0.975 * NUM_RESAMPLES) - 1]


def row(name: str, found: list[tuple[float, float]]) -> dict[str, object]:
    differences = [scale - gunicorn for gunicorn, scale in found]
    low, high = interval(differences)
    gunicorn, scale = (statistics.median(times) for times in zip(*found, strict=True))
    return {
        "requests": name,
        "pairs": len(found),
        "gunicorn ms": gunicorn,
        "scale ms": scale,
        "difference ms": statistics.median(differences),
        "95% from": low,
        "to": high,
        "%": 100 * (scale / gunicorn - 1),
    }


@contextmanager
def cluster(proxy: str, port: int) -> Iterator[str]:
    """One replica behind one proxy, on this machine."""
    # Ray's sockets lie there, and their names may not be long.
    with TemporaryDirectory(prefix="fl", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environ = {**os.environ, **SETTINGS, "FORKLIFT_CACHE_DIR": folder, "HOME": folder, "RAY_TMPDIR": folder}
        command = [sys.executable, "-m", "app.cli", "scale"]
        up = ["up", "--proxy", proxy, "--port", str(port), "--address", "127.0.0.2", "--timeout", str(START_LIMIT_S)]
        try:
            subprocess.run([*command, *up], env=environ, check=True, stdout=subprocess.DEVNULL)
            yield f"http://127.0.0.1:{port}"
        finally:
            subprocess.run([*command, "down"], env=environ, check=False, stdout=subprocess.DEVNULL)


@click.command()
@click.option("--gunicorn", help="URL of plain Gunicorn, where it runs already.")
@click.option("--scale", help="URL of a cluster's proxy, where it runs already.")
@click.option("--proxy", type=click.Choice(["haproxy", "python"]), default="haproxy", show_default=True)
@click.option("--port", default=8000, show_default=True, help="Port of the proxy that is started.")
@click.option("--pairs", "num_pairs", default=200, show_default=True, help="Pairs of requests of each kind.")
@click.option("--only", type=click.Choice(list(KINDS)), help="One kind of requests.")
def main(gunicorn: str | None, scale: str | None, proxy: str, port: int, num_pairs: int, only: str | None) -> None:
    """Print a table of medians, and of the paired difference with its 95% interval."""
    os.environ.update(THREADS)
    with ExitStack() as stack:
        plain = gunicorn or stack.enter_context(running(forklift("gunicorn", DEMO, max_batch_size=NUM_AT_ONCE)))
        scaled = scale or stack.enter_context(cluster(proxy, port))
        rows = []
        for name in [only] if only else KINDS:
            call = KINDS[name]
            pairs(call, plain, scaled, 5)
            rows.append(row(name, pairs(call, plain, scaled, num_pairs // 4 if name == CROWD else num_pairs)))
    show(f"plain Gunicorn and Ray Serve with {proxy}", rows, niceness=os.nice(0))


if __name__ == "__main__":
    main()
