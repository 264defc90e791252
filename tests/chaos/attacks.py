"""Attacks that happen while a server runs, as a table; and a program that repeats one of them at low priority.

``python -m tests.chaos.attacks PORT NAME attack|harmless SECONDS``: some connections at a time send the row's request
again and again; one JSON line says what came of it. A row is added to ``ATTACKS``; it names the fault that it repeats.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from tests.chaos import guessing, stopping
from tests.service.crowd import completion, post

NUM_CLIENTS = 4
PAUSE_S = 0.05
ANSWER_S = 20.0
# Servers without keys take no notice of it.
HARMLESS = completion(16, headers=guessing.header(guessing.WELL_BEHAVED_KEY))
# What server a row needs: one worker, one worker with keys, or two of which one is stopped.
Kind = Literal["plain", "keys", "pair"]


@dataclass(frozen=True)
class Attack:
    """``request``, or what makes the one of a number; ``reads``: whether the attacker takes the answer.

    ``stays_s``: how long it stays if not; ``tells`` makes of all answers what the attacker found out.
    """

    request: bytes | Callable[[int], bytes]
    num_clients: int = NUM_CLIENTS
    reads: bool = True
    stays_s: float = 0.0
    server: Kind = "plain"
    tells: Callable[[list[bytes]], dict[str, Any]] | None = None

    def request_at(self, index: int) -> bytes:
        return self.request if isinstance(self.request, bytes) else self.request(index)


def body_of(path: str, headers: str = "", **fields: object) -> bytes:
    return post(path, json.dumps(fields).encode(), headers)


def with_schema(schema: object, n: int = 1) -> bytes:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    messages = [{"role": "user", "content": "x"}]
    return body_of("/v1/chat/completions", messages=messages, response_format=form, max_tokens=8, n=n)


def chat(history: str, headers: str = "") -> bytes:
    return body_of("/chat", headers, messages=[{"role": "user", "content": history}], max_new_tokens=4)


PATTERNS = [r"(?:\w?){999}" * 20 + r"\."] * 16
MANY_PATTERNS = {"type": "object", "patternProperties": {f"^a{i}.*b{i}$": {} for i in range(400)}}
IDS = [[1 + i % 50 for i in range(400)] for _ in range(64)]
CHUNKS = b"POST /complete HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 65_000
HUGE = b"POST /complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1900000\r\n\r\n" + b"x" * 1_900_000

ATTACKS: dict[str, Attack] = {
    "E1 multipleOf": Attack(with_schema({"type": "integer", "multipleOf": 9_999_991})),
    "E1 multipleOf, n": Attack(with_schema({"type": "integer", "multipleOf": 19_999_999}, n=16)),
    "E1 patternProperties": Attack(with_schema(MANY_PATTERNS)),
    "E2 patterns": Attack(body_of("/complete", prompt="x", truncate_before_pattern=PATTERNS, max_new_tokens=64)),
    "E3 long prompt": Attack(body_of("/complete", prompt="a " * 900_000)),
    "E3 tokenize": Attack(body_of("/tokenize", text="a " * 900_000)),
    "E4 long history": Attack(chat("word " * 360_000, "X-Request-Timeout-S: 2\r\n"), num_clients=8),
    "E5 slow readers": Attack(body_of("/tokenize", text="a b " * 20_000), 24, reads=False, stays_s=3.0),
    "E5 large bodies": Attack(HUGE, 64, reads=False, stays_s=1.0),
    "E6 another key's prefix": Attack(guessing.guess, server="keys", tells=guessing.found),
    "E8 stopped in the lock": Attack(HARMLESS, server="pair"),
    "E9 64 prompts": Attack(body_of("/v1/completions", prompt=IDS, n=2, echo=True, logprobs=5, max_tokens=4), 1),
    "E10 minLength": Attack(with_schema({"minLength": "a" + "\u59d3\u540d" * 40})),
    "E14 tiny chunks": Attack(CHUNKS, num_clients=60),
    "E15 another page": Attack(body_of("/complete", "Origin: https://page.example\r\n", prompt="x"), 16),
    "E16 idle connections": Attack(b"GET /li", 200, reads=False, stays_s=2.0),
    "E18 controls": Attack(body_of("/complete", "X-Request-Id: \u009b2J\u2028\r\n", prompt="\u009b\u2028"), 16),
    "B1 leaves behind a byte": Attack(completion(500) + b"\r\n", 8, reads=False, stays_s=0.3),
    "B1 probes in a flood": Attack(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 16),
}


async def repeat(port: int, attack: Attack, is_harmless: bool, end_s: float) -> dict[str, Any]:
    answers: list[bytes] = []

    async def one(index: int) -> None:
        while time.monotonic() < end_s:
            request = HARMLESS if is_harmless else attack.request_at(index)
            index += num_clients
            with suppress(OSError, asyncio.TimeoutError):
                answers.append(await asyncio.wait_for(send(port, request, attack, is_harmless), ANSWER_S))
            await asyncio.sleep(PAUSE_S)

    num_clients = min(attack.num_clients, NUM_CLIENTS) if is_harmless else attack.num_clients
    clients = asyncio.gather(*(one(index) for index in range(num_clients)))
    found = {} if is_harmless or attack.server != "pair" else await stopping.stop_in_turn(port, end_s)
    await clients
    return found if is_harmless or not attack.tells else attack.tells(answers)


async def send(port: int, request: bytes, attack: Attack, is_harmless: bool) -> bytes:
    """What was read of the answer, where the attack has a use for it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    answer = b""
    try:
        writer.write(request)
        if attack.reads or is_harmless:
            while piece := await reader.read(65_536):
                answer += piece if attack.tells else b""
        else:
            await asyncio.sleep(attack.stays_s)
    finally:
        writer.close()
    return answer


def main(arguments: list[str], nice: Callable[[int], int] = os.nice) -> None:
    port, name, kind, seconds = arguments
    nice(19)
    end_s = time.monotonic() + float(seconds)
    print(json.dumps(asyncio.run(repeat(int(port), ATTACKS[name], kind == "harmless", end_s))))


if __name__ == "__main__":
    main(sys.argv[1:])
