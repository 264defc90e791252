"""Input that is wrong, huge or made to hurt; the real application on the stand-in for the engine."""

from __future__ import annotations

import json
import select
from contextlib import suppress
from pathlib import Path

import pytest

from tests.service.conftest import SteppingServer, server_starter
from tests.service.crowd import completion, post, send_all

MAX_GROWTH_BYTES = 20_000_000
HUGE_BYTES = 100_000_000
NESTED = 100_000
BAD_BODIES = [
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "p"',
    b'["prompt"]',
    b'{"prompt": 1}',
    b'{"prompt": "p", "temperature": NaN}',
    b'{"prompt": "p", "temperature": 1e999}',
    b'{"prompt": "p", "temperature": -1}',
    b'{"prompt": "p", "max_new_tokens": true}',
    b'{"prompt": "p", "max_new_tokens": -1}',
    b'{"prompt": "p", "max_new_tokens": 0}',
    b'{"prompt": "p", "max_new_tokens": 1e12}',
    b'{"prompt": "p", "max_new_tokens": ' + b"9" * 100_000 + b"}",
    b'{"prompt": "p", "n": 1000000000}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "p", "stop": ' + json.dumps([str(number) for number in range(1000)]).encode() + b"}",
    b'{"prompt": "p", "truncate_before_pattern": ["(?=a)"]}',
    b"[" * NESTED + b"]" * NESTED,
    b'{"a":' * NESTED + b"1" + b"}" * NESTED,
]
BAD_COMPLETIONS = [
    b'{"prompt": "p", "n": 1000000000}',
    b'{"prompt": "p", "best_of": 1000000000}',
    b'{"prompt": "p", "max_tokens": 0}',
    b'{"prompt": ' + json.dumps(["p"] * 1000).encode() + b"}",
    b'{"prompt": "p", "logit_bias": {"a": 1e999}}',
]
LEGAL_TEXT = "nul \x00, line separators \u2028\u2029, a pair \U0001f600, right to left \u202e"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    starter = server_starter(tmp_path_factory.mktemp("hostile"), SteppingServer)
    yield next(starter)(workers=1, api_keys="sesame,s\u00e9same")
    next(starter, None)


KEY = "Authorization: Bearer sesame\r\n"


def memory_bytes(server) -> int:
    return int(Path(f"/proc/{server.rows()[0]['pid']}/statm").read_text().split()[1]) * 4096


def test_bad_input_is_refused_without_memory_or_the_engine(server):
    send_all(server.port, [completion(1, headers=KEY)] * 20, [0.01] * 20)
    started, before_bytes = server.jobs("started"), memory_bytes(server)
    requests = [post("/complete", body, KEY) for body in BAD_BODIES]
    requests += [post("/v1/completions", body, KEY) for body in BAD_COMPLETIONS]
    answers = send_all(server.port, requests * 3, [0.005] * 3 * len(requests))
    wrong = [request[-60:] for request, answer in zip(requests * 3, answers, strict=True) if answer.status != 400]
    assert wrong == []
    assert all(answer.json()["error"]["code"] and answer.headers["x-request-id"] for answer in answers)
    for _ in range(3):
        assert status_of_huge_body(server, f"Content-Length: {HUGE_BYTES}", b"x" * 65536) == 413
        assert status_of_huge_body(server, "Transfer-Encoding: chunked", b"10000\r\n" + b"x" * 65536 + b"\r\n") == 413
    [answer] = send_all(server.port, [post("/complete", b"{}", KEY, content_type="text/html")])
    assert answer.status == 415
    growth_bytes = memory_bytes(server) - before_bytes
    print(f"memory grew by {growth_bytes / 1e6:.1f} MB")
    assert growth_bytes < MAX_GROWTH_BYTES
    assert server.jobs("started") == started


def status_of_huge_body(server, framing: str, piece: bytes) -> int:
    """Send until the server answers or all is sent, reading meanwhile; the status of the answer."""
    head = f"POST /complete HTTP/1.1\r\nHost: localhost\r\n{KEY}Content-Type: application/json\r\n{framing}\r\n\r\n"
    with server.connect(head.encode()) as client:
        for _ in range(HUGE_BYTES // 65536):
            if select.select([client], [], [], 0)[0]:
                break
            with suppress(ConnectionError):
                client.sendall(piece)
        return int(client.recv(65536).split()[1])


def test_legal_text_makes_the_round_trip(server):
    body = {"prompt": LEGAL_TEXT, "max_new_tokens": 1, "echo": True}
    for raw in (json.dumps(body).encode(), json.dumps(body, ensure_ascii=False).encode()):
        [answer] = send_all(server.port, [post("/complete", raw, KEY)])
        assert answer.json()["completion"] == LEGAL_TEXT + "x"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer s\u00e8same\r\n", 401),
        ("Authorization: Basic sesame\r\n", 401),
        ("Authorization: Bearer s\u00e9same\r\n", 200),
        (KEY, 200),
        ("X-Api-Key: sesame\r\n", 200),
        ("X-Api-Key: wrong\r\nAuthorization: Bearer wrong\r\n", 401),
        ("X-Api-Key: sesame\r\nX-Api-Key: sesame\r\n", 401),
    ],
)
def test_only_a_known_key_opens(server, head, status):
    request = completion(1).replace(b"Host: localhost\r\n", b"Host: localhost\r\n" + head.encode())
    [answer] = send_all(server.port, [request])
    assert answer.status == status


@pytest.mark.parametrize("host", ["", "x" * 5000, "../../etc", "a b", "[::1", "\u00e9"])
def test_an_odd_host_is_served_or_refused(server, host):
    request = completion(1, headers=KEY).replace(b"Host: localhost", b"Host: " + host.encode())
    [answer] = send_all(server.port, [request])
    assert answer.status in (400, 421, 431)


@pytest.mark.parametrize(
    "request_id", ["a\r\n forged", "a\nforged", "a\rforged", '"}\\n{"event": "forged"}', "\u2028forged"]
)
def test_a_request_id_forges_no_log_line(server, request_id):
    raw = completion(1, headers=KEY).replace(
        b"Host: localhost", b"Host: localhost\r\nX-Request-Id: " + request_id.encode()
    )
    [answer] = send_all(server.port, [raw])
    assert answer.status in (200, 400)
    assert "forged" not in answer.headers["x-request-id"]
    assert "forged" not in server.log()


@pytest.mark.parametrize("model", ["../../etc/passwd", "/etc/passwd", "", "scripted\x00"])
def test_a_model_name_that_is_a_path_is_just_unknown(server, model):
    [answer] = send_all(server.port, [completion(1, headers=KEY, model=model)])
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_the_worker_is_still_the_same_and_nothing_went_wrong_in_it(server):
    assert "Traceback" not in server.log()
    assert server.in_hand() == (0, 0)
