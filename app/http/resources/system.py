"""Probes. They read the slot board and never wait for inference. HTTP threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flask import Response

from app.http.errors import json_response
from app.http.resources.capabilities import kv_cache
from app.http.restful import Route
from app.serve.context import State

if TYPE_CHECKING:
    from app.serve.board import SlotRow

# Which state describes a server whose slots differ: the first that any live slot is in.
PRECEDENCE: tuple[State, ...] = ("ready", "loading", "draining", "failed")


class Livez(Route):
    """200 while the process answers."""

    def get(self) -> Response:
        return json_response({"status": "ok"})


class Readyz(Route):
    """200 when any worker of this server can take work."""

    def get(self) -> Response:
        rows = self.service.context.board.rows()
        live = [row for row in rows if row.pid is not None]
        state = overall_state([row.state for row in live])
        body = {
            "state": state,
            "progress": max((row.progress for row in live if row.state == state), default=0.0),
            "kv_cache": kv_cache(self.service.served[0]),
            "slots": [describe(row) for row in rows],
        }
        return json_response(body, 200 if state == "ready" else 503)


def overall_state(states: Sequence[State]) -> State:
    """The server's state; with no live worker it is loading, since the master starts them again."""
    return next((state for state in PRECEDENCE if state in states), "loading")


def describe(row: SlotRow) -> dict[str, object]:
    """One worker slot as the contract shows it."""
    return {
        "slot": row.slot,
        "pid": row.pid,
        "gpus": list(row.gpus),
        "state": row.state,
        "num_running": row.num_running,
        "num_waiting": row.num_waiting,
    }
