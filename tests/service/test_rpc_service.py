"""gRPC on real Gunicorn workers: one channel reaches all, places are exact over both doors, and ends are orderly."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")

from app.client.connection.protocol import forklift_pb2 as wire
from tests.service.conftest import PATIENCE_S, unused_port, wait_for

pytestmark = pytest.mark.slow  # real servers; tests/contract has the door itself

COMPLETE = "/forklift.v1.Forklift/Complete"
PLACES = 12


@pytest.fixture
def start_rpc(start_stepping):
    """Starts two workers with a gRPC port, ``server.grpc``, that take two sequences and let ten wait."""

    def start(environ=None, **settings):
        address = f"127.0.0.1:{unused_port()}"
        server = start_stepping(environ or {}, workers=2, num_ready=2, grpc_bind=address, **settings)
        server.grpc = address
        wait_for(lambda: server.log().count("grpc_listening") >= 2, "both gRPC ports")
        return server

    return start


@contextmanager
def channel_to(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def begin(channel, num_tokens=1, **options):
    """A call on its way."""
    ask = channel.unary_unary(COMPLETE, wire.CompleteRequest.SerializeToString, wire.CompleteReply.FromString)
    request = wire.CompleteRequest(prompt="p", options=wire.Options(max_new_tokens=num_tokens))
    return ask.future(request, timeout=PATIENCE_S * 3, **options)


def worker_of(call):
    return dict(call.initial_metadata())["x-worker"]


def running(server):
    return [row["num_running"] for row in server.rows()]


def places(server):
    return sum(row["num_running"] + row["num_waiting"] for row in server.rows())


def test_one_channel_reaches_all_workers(start_rpc):
    server = start_rpc()
    server.gate.touch()
    with channel_to(server) as channel:
        calls = []
        for num in (1, 2):
            calls.append(begin(channel))
            wait_for(lambda num=num: sum(running(server)) == num, "the call to run")
        assert running(server) == [1, 1]
        server.gate.unlink()
        assert [call.result().completion for call in calls] == ["x", "x"]
        assert {worker_of(call) for call in calls} == {"0", "1"}
    assert metric(server, "forklift_rpc_calls_passed_on_total") == 1
    route = 'forklift_requests_total{route="/forklift.v1.Forklift/Complete",status="200"}'
    assert metric(server, route) == 2


def metric(server, name):
    """The value of one line of /metrics."""
    connection = server.http_connection(PATIENCE_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


def test_places_are_exact_over_both_doors(start_rpc):
    """40 calls on one channel and 40 requests over HTTP at once: twelve are served."""
    server = start_rpc(max_queue=10)
    server.gate.touch()
    with channel_to(server) as channel, ThreadPoolExecutor(40) as pool:
        over_http = [pool.submit(server.request, "POST", "/complete", *json_of(timeout_s=90)) for _ in range(40)]
        over_grpc = [begin(channel) for _ in range(40)]
        wait_for(lambda: sum(one.done() for one in (*over_http, *over_grpc)) == 80 - PLACES, "the refusals", 90)
        assert places(server) == PLACES and running(server) == [1, 1]
        server.gate.unlink()
        statuses = Counter(one.result()[0] for one in over_http)
        codes = Counter(outcome(one) for one in over_grpc)
        assert statuses[200] + codes["OK"] == PLACES
        assert set(statuses) <= {200, 503} and set(codes) <= {"OK", "RESOURCE_EXHAUSTED"}
        for one in over_grpc:
            if one.exception() is not None:
                trailers = dict(one.trailing_metadata())
                assert trailers["forklift-code"] == "overloaded" and int(trailers["retry-after"]) > 0
        wait_for(lambda: places(server) == 0, "every place to be given back")


def json_of(timeout_s):
    """The rest of the arguments of a completion over HTTP."""
    return '{"prompt": "p", "max_new_tokens": 1}', {"Content-Type": "application/json"}, timeout_s


def outcome(call):
    return "OK" if call.exception() is None else call.code().name


def test_a_call_that_was_passed_on_is_cancelled_where_it_runs(start_rpc):
    server = start_rpc()
    server.gate.touch()
    with channel_to(server) as channel:
        calls = [begin(channel) for _ in range(4)]
        wait_for(lambda: places(server) == 4, "the calls")
        for call in calls:
            call.cancel()
        wait_for(lambda: places(server) == 0, "the places")
        late = begin(channel, metadata=(("x-request-timeout-s", "0.5"),))
        assert outcome(late) == "DEADLINE_EXCEEDED"
        assert dict(late.trailing_metadata())["forklift-code"] in ("request_timeout", "queue_timeout")
        wait_for(lambda: places(server) == 0, "the place")


def test_what_a_killed_worker_had_is_all_that_is_lost(start_rpc):
    server = start_rpc()
    server.gate.touch()
    with channel_to(server) as channel:
        calls = [begin(channel) for _ in range(2)]
        wait_for(lambda: running(server) == [1, 1], "a call on each worker")
        [accepting] = wait_for(lambda: slot_of_connection(server), "the worker that has the connection")
        victim = next(row for row in server.rows() if row["slot"] != accepting)
        os.kill(victim["pid"], signal.SIGKILL)
        wait_for(lambda: sum(one.done() for one in calls) == 1, "the lost call")
        server.gate.unlink()
        assert sorted(outcome(one) for one in calls) == ["OK", "UNAVAILABLE"]
        for _ in range(20):
            assert begin(channel).result().completion == "x"


def slot_of_connection(server):
    """The slot, in a list, of the worker that accepted the one connection to the gRPC port."""
    port = int(server.grpc.rpartition(":")[2])
    inodes = {
        line.split()[9]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01"
    }
    for row in server.rows():
        for fd in Path(f"/proc/{row['pid']}/fd").iterdir():
            with suppress(OSError):
                if str(fd.readlink()) in {f"socket:[{inode}]" for inode in inodes}:
                    return [row["slot"]]
    return None


def test_a_stop_lets_calls_in_hand_end(start_rpc):
    server = start_rpc()
    server.gate.touch()
    with channel_to(server) as channel:
        calls = [begin(channel, 40) for _ in range(2)]
        wait_for(lambda: running(server) == [1, 1], "a call on each worker")
        server.signal(signal.SIGTERM)
        wait_for(lambda: "Handling signal: term" in server.log(), "the signal")
        server.gate.unlink()
        assert [call.result().completion for call in calls] == ["x" * 40] * 2
    with grpc.insecure_channel(server.grpc) as channel:
        assert outcome(begin(channel)) == "UNAVAILABLE"
    assert server.wait_for_exit() == 0


def test_a_reload_moves_channels_to_new_workers(start_rpc):
    """Calls in hand end well. Until the new workers have slots others are told UNAVAILABLE, as over HTTP 503."""
    server = start_rpc()
    server.gate.touch()
    old = {row["pid"] for row in server.rows()}
    with channel_to(server) as channel:
        calls = [begin(channel, 60) for _ in range(2)]
        wait_for(lambda: running(server) == [1, 1], "a call on each worker")
        server.signal(signal.SIGHUP)
        wait_for(lambda: "Handling signal: hup" in server.log(), "the signal")
        server.gate.unlink()
        assert [call.result().completion for call in calls] == ["x" * 60] * 2
        wait_for(lambda: not old & {row["pid"] for row in ready(server)} and len(ready(server)) == 2, "new workers")
        found = [outcome(begin(channel, wait_for_ready=True)) for _ in range(40)]
        assert found == ["OK"] * 40


def ready(server):
    with suppress(OSError):  # the last words of an old worker
        return [row for row in server.rows() if row["state"] == "ready"]
    return []


def test_the_master_has_never_seen_grpc(start_rpc):
    server = start_rpc()
    assert "cygrpc" not in Path(f"/proc/{server.process.pid}/maps").read_text()
    for row in server.rows():
        assert "cygrpc" in Path(f"/proc/{row['pid']}/maps").read_text()


def test_a_port_that_is_taken_stops_the_start_with_one_line(start_stepping):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start_stepping(workers=1, num_ready=0, grpc_bind=f"127.0.0.1:{port}")
        assert server.wait_for_exit() == 3
    [line] = [line for line in server.log().splitlines() if line.startswith("forklift: ")]
    assert line.startswith(f"forklift: FORKLIFT_GRPC_BIND: 127.0.0.1:{port} is in use")


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


@pytest.mark.parametrize("path", [b"/\xff\xfe/Complete", b"/forklift.v1.Forklift/\x00", b"", b"*"])
def test_a_path_that_is_no_text_harms_nobody_else(start_rpc, path):
    server = start_rpc()
    head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x")]
    head += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    payload = b"".join(literal(*one) for one in head)
    for _ in range(4):
        with socket.create_connection(("127.0.0.1", int(server.grpc.rpartition(":")[2])), timeout=5) as sock:
            sock.sendall(PREFACE + frame(1, 5, 1, payload))
            time.sleep(0.2)
    with channel_to(server) as channel:
        for _ in range(4):
            assert begin(channel, wait_for_ready=True).result().completion == "x"


def test_pings_without_end_end_the_connection(start_rpc):
    server = start_rpc()
    with socket.create_connection(("127.0.0.1", int(server.grpc.rpartition(":")[2])), timeout=10) as sock:
        sock.sendall(PREFACE)
        with pytest.raises(OSError):
            for _ in range(200):
                sock.sendall(frame(6, 0, 0, b"12345678"))
                time.sleep(0.02)
    with channel_to(server) as channel:
        assert begin(channel).result().completion == "x"
