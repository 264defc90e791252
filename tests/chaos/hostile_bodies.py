"""Bodies for every route that takes one: real requests, bent at random places. Pure but for its random numbers."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.contract.clients import CLIENTS

HI = {"role": "user", "content": "hi"}
STRUCTURED = ("/complete", "/v1/completions", "/v1/chat/completions", "/chat")
SEEDS: list[tuple[str, dict[str, Any]]] = [
    *((client.path, client.body) for client in CLIENTS),
    ("/", {"data": "def f("}),
    ("/", {"prompt": "hi"}),
    ("/complete", {"prompt": "def f(", "n": 2, "logprobs": 2, "stop": ["x"], "truncate_before_pattern": ["^#"]}),
    ("/complete", {"data": "x", "echo": True, "bad_words": ["a"], "min_new_tokens": 1, "recordid": 7}),
    ("/chat", {"prompt": "hi", "history": [["a", "b"]], "system": "s", "max_length": 200}),
    ("/chat", {"messages": [HI], "temperature": 0.5, "seed": 3}),
    ("/infill", {"parts": ["a", "b", "c"]}),
    ("/infill", {"prefix": "a", "suffix": "b", "input_extra": [{"filename": "f", "text": "t"}]}),
    ("/fill-mask", {"text": ["a [MASK]"], "top_k": 3}),
    ("/tokenize", {"text": "a", "add_special_tokens": False}),
    ("/detokenize", {"tokens": [5, 6]}),
    ("/v1/embeddings", {"input": ["a"], "encoding_format": "base64"}),
    ("/v1/completions", {"prompt": [[5, 6], [7]], "echo": True, "logprobs": 3, "best_of": 2, "max_tokens": 0}),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 17, 2**31, 2**53 + 1, -(2**63), 2**64, 10**200, 0.5, -0.0, 1e-320, 1e308),
    *(
        "",
        " ",
        "a",
        "x" * 300,
        "\x00",
        "\u2028",
        "\U0001f600",
        "</tool_call>",
        "<|im_start|>",
        "{{ 1 // 0 }}",
        "(?i)a{3}",
    ),
    *("a\ufffd", "\u0301", "null", "1", "data: [DONE]\n\n", "../../etc/passwd", "%s%n", "[" * 100, "\\"),
    *([], {}, [[]], [{}], [None], {"": None}, {"a": {"a": {"a": []}}}, [1, "a"], ["a"] * 70, [[0, 1]], {"type": "x"}),
]
NAMES = ["", "x", "model", "n", "stop", "stream", "logit_bias", "__class__", "max_tokens", "type", "\u00e9", "a" * 200]
TYPES = ["string", "integer", "number", "boolean", "null", "array", "object"]
FORMATS = ["date", "time", "email", "uuid", "password", "byte", "ipv4", "x-unknown"]


def bodies(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """``number`` routes with a body each, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(number):
        path, body = rng.choice(SEEDS)
        body = copy.deepcopy(body)
        body.pop("model", None)
        if path in STRUCTURED and rng.random() < 0.4:
            body["response_format"] = response_format(rng)
        if path == "/v1/chat/completions" and rng.random() < 0.1:
            body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": schema(rng, 3)}}]
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            bend(body, rng)
        yield path, broken(json.dumps(body).encode(), rng)


def response_format(rng: random.Random) -> dict[str, Any]:
    """A format that a completion is to have."""
    return rng.choice(
        [
            {"type": "json_schema", "json_schema": {"name": "s", "schema": schema(rng, 4)}},
            {"type": "json_object"},
            {"type": "text"},
        ]
    )


def schema(rng: random.Random, depth: int) -> dict[str, Any]:
    """A JSON schema of few keywords, which may ask for anything or nothing."""
    kind = rng.choice(TYPES)
    found: dict[str, Any] = {"type": kind}
    for _ in range(rng.randrange(4)):
        name, value = rng.choice(list(KEYWORDS.items()))
        found[name] = value(rng)
    if depth and kind == "array":
        found["items"] = schema(rng, depth - 1)
    if depth and kind == "object":
        names = rng.sample(["a", "b", "\u00e9", ""], rng.randrange(4))
        found["properties"] = {name: schema(rng, depth - 1) for name in names}
        found["required"] = rng.sample(names, rng.randrange(len(names) + 1))
    if depth and rng.random() < 0.2:
        found[rng.choice(["anyOf", "oneOf", "allOf"])] = [schema(rng, depth - 1) for _ in range(rng.randrange(3))]
    if rng.random() < 0.05:
        found = {"$ref": rng.choice(["#", "#/$defs/a", "#/nowhere", "https://example.org/s"]), "$defs": {"a": found}}
    return found


KEYWORDS: dict[str, Callable[[random.Random], Any]] = {
    "minLength": lambda rng: rng.choice((0, 1, 5, 2000, -1)),
    "maxLength": lambda rng: rng.choice((0, 1, 5, 10**9)),
    "pattern": lambda rng: rng.choice(("^a+$", "(", "[a-z]{2}", "\\d", "(a|b)*c", "^aI.*bI$")),
    "format": lambda rng: rng.choice(FORMATS),
    "enum": lambda rng: [rng.choice(VALUES) for _ in range(rng.randrange(4))],
    "const": lambda rng: rng.choice(VALUES),
    "minimum": lambda rng: rng.choice((-5, 0, 2**53 + 1, 1e300)),
    "maximum": lambda rng: rng.choice((-6, 0, 10)),
    "multipleOf": lambda rng: rng.choice((0, 1, 3, 0.1, 9999991)),
    "minItems": lambda rng: rng.choice((0, 1, 3)),
    "maxItems": lambda rng: rng.choice((0, 1, 10**6)),
    "uniqueItems": lambda rng: rng.choice((True, False)),
    "minProperties": lambda rng: rng.choice((0, 1, 4)),
    "additionalProperties": lambda rng: rng.choice((True, False, {"type": "integer"})),
    "patternProperties": lambda rng: {"^x": {"type": "string"}},
    "not": lambda rng: {"type": "string"},
    "description": lambda rng: "d",
    "default": lambda rng: None,
}


def bend(body: Any, rng: random.Random) -> None:
    """Change one place of the body, at any depth."""
    holders = [holder for holder in containers(body) if holder or isinstance(holder, dict)]
    holder = rng.choice(holders)
    if isinstance(holder, dict) and (not holder or rng.random() < 0.25):
        holder[rng.choice(NAMES)] = copy.deepcopy(rng.choice(VALUES))
        return
    key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))


def containers(value: Any) -> Iterator[Any]:
    """Every list and object in ``value``, itself first."""
    if isinstance(value, dict | list):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from containers(child)


def broken(raw: bytes, rng: random.Random) -> bytes:
    """Now and then no JSON any more."""
    if rng.random() > 0.03:
        return raw
    at = rng.randrange(len(raw) + 1)
    return rng.choice([raw[:at], raw[:at] + b"\xff" + raw[at:], raw + raw, b"[" * 5000, raw.replace(b"1", b"1e999", 1)])
