"""Reads streams of named events as a careful client would."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.test import TestResponse


def named_events_of(response: TestResponse) -> list[dict[str, Any]]:
    """The events of a whole stream; each bears its name twice. Comments and pings are left out."""
    assert response.mimetype == "text/event-stream"
    text = response.get_data(as_text=True)
    assert text.endswith("\n\n")
    events = []
    for block in text.split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event["type"] != "ping":
            events.append(event)
    return events
