"""Starts each server that is compared, on a loopback port, and ends it by its own pid."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.shapes import ROOT

START_LIMIT_S = 300


@dataclass(frozen=True)
class Contender:
    """One server: how and in which folder it is started, and where it says that it is ready."""

    name: str
    command: tuple[str, ...]
    ready_path: str
    environ: dict[str, str] = field(default_factory=dict)
    can_stream: bool = True
    extra_fields: dict[str, object] = field(default_factory=dict)
    folder: Path = ROOT


def forklift(name: str, folder: Path, **settings: object) -> Contender:
    """``gunicorn wsgi:app`` with ``FORKLIFT_`` settings; nothing compiles meanwhile unless they say so."""
    environ = {"FORKLIFT_COMPILE": "never"}
    environ |= {f"FORKLIFT_{key.upper()}": str(value) for key, value in settings.items()}
    environ |= {"FORKLIFT_MODEL": str(folder), "FORKLIFT_BIND": "127.0.0.1:{port}", "FORKLIFT_MAX_QUEUE": "64"}
    command = (sys.executable, "-m", "gunicorn", "wsgi:app")
    return Contender(name, command, "/readyz", environ, extra_fields={"temperature": 0, "ignore_eos": True})


def transformers_serve(name: str, folder: Path, *flags: str) -> Contender:
    """``transformers serve`` from the same environment."""
    # What the script `transformers` does; it does not lie beside the Python of every environment.
    start = (sys.executable, "-c", "from transformers.cli.transformers import main; main()")
    command = (*start, "serve", str(folder), "--host", "127.0.0.1", "--port", "{port}", *flags)
    return Contender(name, command, "/health", extra_fields={"model": str(folder), "temperature": 0})


def plain_flask(name: str, folder: Path, device: str = "cpu") -> Contender:
    command = (sys.executable, "-m", "benchmarks.plain_flask", str(folder), "{port}", device)
    return Contender(name, command, "/readyz", can_stream=False)


def llama_cpp(name: str, start: Path, weights: Path) -> Contender:
    """llama.cpp's server on a GGUF file; ``start FILE PORT`` is the script that runs it."""
    fields: dict[str, object] = {"temperature": 0, "ignore_eos": True, "cache_prompt": False}
    return Contender(name, (str(start), str(weights), "{port}"), "/health", extra_fields=fields)


def vllm(name: str, start: Path, folder: Path) -> Contender:
    """vLLM; ``start FOLDER PORT`` is the script that runs it, with the model's name ``m``."""
    fields: dict[str, object] = {"model": "m", "temperature": 0, "ignore_eos": True}
    return Contender(name, (str(start), str(folder), "{port}"), "/health", extra_fields=fields)


@contextmanager
def running(contender: Contender) -> Iterator[str]:
    """Start ``contender``; yields its URL once it is ready."""
    port = _free_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith("FORKLIFT_")}
    environ |= {key: value.format(port=port) for key, value in contender.environ.items()}
    environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [part.format(port=port) for part in contender.command]
    log = ROOT / "build" / "benchmarks" / f"{contender.name.replace(',', '').replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=contender.folder, env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, url + contender.ready_path, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(15)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at its start:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"not ready after {START_LIMIT_S} s: {url}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
