"""Probes. They read the slot board and never wait for inference. HTTP threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, request

from app import __version__
from app.core.errors import LoadingError
from app.core.states import overall_state
from app.http.answers import system_types as system
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.resources.capabilities_route import kv_cache

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle
    from app.serve.board.slot_board import SlotState
    from app.serve.registry.registration import Registration


class Livez(Route):
    """200 while the process answers."""

    def get(self) -> Response:
        alive: system.Alive = {"status": "ok"}
        return json_response(alive)


class Readyz(Route):
    """200 when any worker of this server can take work."""

    def get(self) -> Response:
        body = self.readiness()
        return json_response(body, 200 if body["state"] == "ready" else 503)

    def readiness(self) -> system.Readiness:
        rows = self.service.context.board.rows()
        live = [row for row in rows if row.pid is not None]
        state = overall_state([row.state for row in live])
        return {
            "state": state,
            "progress": max((row.progress for row in live if row.state == state), default=0.0),
            "kv_cache": kv_cache(self.service.handles[0]),
            "engines": [engine(handle) for handle in self.service.handles],
            **registry(self.service.context.registration),
            "slots": [describe(row) for row in rows],
        }


class Health(Readyz):
    """The same under the name that llama.cpp's plugins and load balancers ask for, with a word for the state."""

    def get(self) -> Response:
        body = self.readiness()
        is_ready = body["state"] == "ready"
        health: system.Health = {"status": "ok" if body["state"] == "ready" else body["state"], **body}
        return json_response(health, 200 if is_ready else 503)


class Props(Route):
    """What llama.cpp's plugins ask of a model: its context, and how many are served together."""

    def get(self) -> Response:
        handle = self.service.choose(request.args.get("model"), None)
        if handle.model is None:
            raise LoadingError("the model is not loaded")
        props: system.Props = {
            "default_generation_settings": {"n_ctx": handle.model.context_tokens},
            "total_slots": handle.settings.max_batch_size,
            "model_alias": handle.name,
            "model_path": handle.name,
            "build_info": f"forklift-{__version__}",
        }
        return json_response(props)


def engine(handle: ModelHandle) -> system.Engine:
    """The way that this worker runs a model; nulls while it is not loaded."""
    return {
        "model": handle.name,
        "task": handle.task,
        "state": handle.state,
        "engine": handle.engine_name,
        "dropped": handle.dropped,
        "compiled": handle.is_compiled,
        "compiling": handle.is_compiling,
    }


def registry(registration: Registration | None) -> system.Registered:
    """How this server stands in its registry, where it has one. It serves all the same where that is away."""
    if registration is None:
        return {}
    return {"registry": {"id": registration.server_id, "connected": registration.is_connected}}


def describe(row: SlotState) -> system.Slot:
    """One worker slot as the contract shows it."""
    return {
        "slot": row.slot,
        "pid": row.pid,
        "gpus": list(row.gpus),
        "state": row.state,
        "num_running": row.num_running,
        "num_waiting": row.num_waiting,
    }
