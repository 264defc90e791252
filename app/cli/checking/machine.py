"""The machine: address, shared memory, file descriptors, disk, proxies."""

from __future__ import annotations

import ipaddress
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from app.cli.checking.findings import Finding, Findings, Situation, gib
from app.core.parsing.addresses import is_tcp, split_host_port
from app.serve.board.shared_files import SHARED_MEMORY

# The board, a heartbeat file per worker, and counters: some 100 KB per worker.
SHARED_MEMORY_BYTES = 16 * 2**20
DISK_BYTES = 256 * 2**20
# What a worker has open beside connections: libraries, weights, counters, logs.
OTHER_FILES = 128
# Gunicorn's default of connections that one worker holds.
CONNECTIONS = 1000
LOOPBACK = ("127.0.0.1", "localhost")


def check_address(situation: Situation) -> Findings:
    """Whether each address can be listened on, by trying; Gunicorn takes several between commas."""
    for bind in situation.settings.addresses:
        if bind.startswith("unix:"):
            yield _check_unix(Path(bind.removeprefix("unix:")))
        elif is_tcp(bind):
            yield _check_port(bind)


def _check_unix(path: Path) -> Finding:
    if os.access(path.parent, os.W_OK | os.X_OK):
        return Finding("address", "ok", f"{path.parent} can hold the socket")
    return Finding("address", "fault", f"cannot make a socket in {path.parent}", "set FORKLIFT_BIND elsewhere")


def _check_port(bind: str) -> Finding:
    try:
        _listen(*split_host_port(bind))
    except OSError as error:
        what = f"cannot listen on {bind}: {error.strerror}"
        return Finding("address", "fault", what, "stop what listens there, or set FORKLIFT_BIND to another address")
    return Finding("address", "ok", f"{bind} is free")


def _listen(host: str, port: int) -> None:
    """For a moment. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Two sockets with SO_REUSEADDR may share an address until one listens.
        sock.listen(1)


def check_shared_memory(_situation: Situation) -> Findings:
    """Slots, heartbeats and counters lie there: on a disk they would stall with it."""
    advice = "mount a tmpfs there (docker run --shm-size 64m)"
    try:
        with tempfile.TemporaryFile(dir=SHARED_MEMORY) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError as error:
        yield Finding("shared memory", "fault", f"{SHARED_MEMORY} cannot be written: {error.strerror}", advice)
        return
    if free < SHARED_MEMORY_BYTES:
        text = f"{SHARED_MEMORY} has {gib(free)} free, {gib(SHARED_MEMORY_BYTES)} are needed"
        yield Finding("shared memory", "fault", text, advice)
    else:
        yield Finding("shared memory", "ok", f"{SHARED_MEMORY} has {gib(free)} free")


def check_files(situation: Situation) -> Findings:
    """Each connection, waiting or served, is a file descriptor; with too few for its threads a worker cannot serve."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = situation.settings.num_http_threads + OTHER_FILES
    wanted = least + CONNECTIONS
    advice = f"ulimit -n {max(65536, wanted)} (systemd: LimitNOFILE, Docker: --ulimit nofile)"
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"{soft} are allowed")
    elif soft >= least:
        text = f"{soft} open files are allowed; a worker that holds {CONNECTIONS} connections needs {wanted}"
        yield Finding("open files", "warning", text, advice)
    else:
        text = f"{soft} open files are allowed; a worker with its HTTP threads alone needs {least}"
        yield Finding("open files", "fault", text, advice)


def check_disk(situation: Situation) -> Findings:
    """The folders that are written to: temporary files, and the hub's cache where MODEL is a hub id."""
    folders = {"temporary files": Path(tempfile.gettempdir())}
    if any(not Path(plan.settings.model).exists() for plan in situation.settings.plans):
        home = situation.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
        folders["the hub's cache"] = Path(home)
    for use, folder in folders.items():
        free = shutil.disk_usage(_existing(folder)).free
        if free < DISK_BYTES:
            text = f"{folder} ({use}) has {gib(free)} free, {gib(DISK_BYTES)} are needed"
            yield Finding("disk", "fault", text, "make room, or point TMPDIR and HF_HOME elsewhere")
        else:
            yield Finding("disk", "ok", f"{folder} ({use}) has {gib(free)} free")


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def check_proxies(situation: Situation) -> Findings:
    """A proxy that is asked for this machine's own address answers instead of the server."""
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    found = [name for name in names if situation.environ.get(name)]
    if not found:
        yield Finding("proxies", "ok", "none is set for http")
    elif caught := [host for host in LOOPBACK if not is_excepted(host, situation.environ)]:
        text = f"{found[0]} is set and would be asked for {' and '.join(caught)}"
        yield Finding("proxies", "fault", text, "export NO_PROXY=localhost,127.0.0.1 no_proxy=localhost,127.0.0.1")
    else:
        yield Finding("proxies", "ok", f"{found[0]} is set, this machine is excepted")


def is_excepted(host: str, environ: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names ``host``, by name or, as curl and requests read it, by a network."""
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return any(_matches(host, entry.strip()) for entry in exceptions.split(","))


def _matches(host: str, entry: str) -> bool:
    name = entry.removeprefix(".").partition(":")[0]
    return entry == "*" or bool(name and (host == name or host.endswith(f".{name}"))) or _is_in(host, entry)


def _is_in(host: str, network: str) -> bool:
    try:
        return "/" in network and ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
