"""Reads streamed answers as a careful client would."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.test import TestResponse

DONE = "[DONE]"


def events_of(response: TestResponse) -> list[Any]:
    """The events of a whole stream, parsed; ``[DONE]`` stays a string, comments are left out."""
    text = response.get_data(as_text=True)
    assert text.endswith("\n\n")
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    payloads = [block.removeprefix("data: ") for block in blocks]
    return [payload if payload == DONE else json.loads(payload) for payload in payloads]


def assert_envelope(response: TestResponse, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The answer is exactly the error envelope; returns its ``error`` object."""
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.mimetype == "application/json"
    body = response.get_json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert body["error"]["message"]
    return body["error"]
