"""What a request takes over gRPC and over HTTP: one caller, both doors of one server in turn, medians.

Run as ``python -m benchmarks.grpc_latency``. Pairs are interleaved, so that what else the machine does falls on both.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import grpc
import requests

from app.client.connection.protocol import forklift_pb2 as wire
from benchmarks.report import show
from benchmarks.shapes import DEMO

PROMPT = "def add(a, b):\n"
START_LIMIT_S = 120.0
COMPLETE, STREAM = (f"/forklift.v1.Forklift/{name}" for name in ("Complete", "CompleteStream"))
NUM_WARM_UP = 10
TARGET_PERCENT = 110


@dataclass(frozen=True)
class Case:
    """A kind of request, over each door."""

    name: str
    http: Callable[[], object]
    grpc: Callable[[], object]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def server(model: Path, workers: int) -> Iterator[tuple[str, str]]:
    """HTTP's URL and gRPC's address while a server runs."""
    http, rpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    settings = {"BIND": http, "GRPC_BIND": rpc, "MODEL": str(model), "WORKERS": str(workers), "COMPILE": "never"}
    environ = os.environ | {f"FORKLIFT_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(f"http://{http}", workers)
        yield f"http://{http}", rpc
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(url: str, num_workers: int) -> None:
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s:
        try:
            slots = requests.get(f"{url}/readyz", timeout=5).json()["slots"]
            if sum(slot["state"] == "ready" for slot in slots) == num_workers:
                return
        except requests.RequestException:
            time.sleep(0.2)
        time.sleep(0.1)
    raise click.ClickException("the server did not become ready")


def cases(url: str, channel: grpc.Channel) -> list[Case]:
    """A whole answer of one token and of 32, and 32 tokens streamed."""
    whole = channel.unary_unary(COMPLETE, wire.CompleteRequest.SerializeToString, wire.CompleteReply.FromString)
    stream = channel.unary_stream(STREAM, wire.CompleteRequest.SerializeToString, wire.CompletePiece.FromString)

    def over_http(num_tokens: int, *, is_streamed: bool = False) -> Callable[[], object]:
        body = {"prompt": PROMPT, "max_new_tokens": num_tokens, "ignore_eos": True, "temperature": 0}
        return lambda: ask(f"{url}/complete", {**body, "stream": is_streamed})

    def request(num_tokens: int) -> wire.CompleteRequest:
        options = wire.Options(max_new_tokens=num_tokens, ignore_eos=True, temperature=0)
        return wire.CompleteRequest(prompt=PROMPT, options=options)

    return [
        Case("tokenize", lambda: ask(f"{url}/tokenize", {"text": PROMPT}), tokenize(channel)),
        Case("1 token", over_http(1), lambda: whole(request(1), timeout=60)),
        Case("32 tokens", over_http(32), lambda: whole(request(32), timeout=60)),
        Case("32 tokens streamed", over_http(32, is_streamed=True), lambda: list(stream(request(32), timeout=60))),
    ]


def ask(url: str, body: dict[str, object]) -> bytes:
    """What answers a request over HTTP; each has a connection of its own, as the server wants it."""
    return requests.post(url, json=body, timeout=60).content


def tokenize(channel: grpc.Channel) -> Callable[[], object]:
    path = "/forklift.v1.Forklift/Tokenize"
    ask = channel.unary_unary(path, wire.TokenizeRequest.SerializeToString, wire.TokenizeReply.FromString)
    return lambda: ask(wire.TokenizeRequest(text=PROMPT), timeout=60)


def took_ms(call: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    call()
    return (time.perf_counter() - begun_s) * 1000


@click.command()
@click.option("--model", type=click.Path(path_type=Path), default=DEMO, help="Folder of the model.")
@click.option("--workers", default=1, help="Worker processes; with several, calls are passed on.")
@click.option("--rounds", default=200, help="Pairs of requests of each kind.")
def main(model: Path, workers: int, rounds: int) -> None:
    """Milliseconds per request over HTTP and gRPC."""
    rows = []
    with server(model, workers) as (url, address), grpc.insecure_channel(address) as channel:
        for case in cases(url, channel):
            for _ in range(NUM_WARM_UP):
                case.http(), case.grpc()
            pairs = [(took_ms(case.http), took_ms(case.grpc)) for _ in range(rounds)]
            http_ms, grpc_ms = (statistics.median(one) for one in zip(*pairs, strict=True))
            percent = 100 * grpc_ms / http_ms
            rows.append({"request": case.name, "HTTP, ms": http_ms, "gRPC, ms": grpc_ms, "gRPC, % of HTTP": percent})
    show("HTTP and gRPC, one caller", rows, workers=workers, rounds=rounds, target_percent=TARGET_PERCENT)


if __name__ == "__main__":
    main()
