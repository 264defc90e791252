"""``GET /v1/capabilities``: what this server's models can do, within which bounds, at what cost. HTTP threads."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import psutil
from flask import Response

from app.core.errors import LoadingError
from app.core.settings import Settings
from app.http.answers.system_types import Adapters, Bounds, CapabilitiesList, KvCache, ModelCapabilities, Parameter
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.description.task_routes import routes_of
from app.http.lora.adapter_service import AdapterService
from app.http.schemas.strict import StrictBody

if TYPE_CHECKING:
    from app.engine.checks.features import Model
    from app.engine.loading.handle import ModelHandle

# What a JSON schema says of a value beside its meaning.
BOUNDS = tuple(name for name in Bounds.__annotations__ if name != "description")


class Capabilities(Route):
    """The served models, one by one."""

    def get(self) -> Response:
        data = [describe(handle, self.service.adapters) for handle in self.service.handles]
        found: CapabilitiesList = {"object": "list", "data": data}
        return json_response(found)


def describe(handle: ModelHandle, in_service: AdapterService) -> ModelCapabilities:
    """One model: what it is, what it supports, what it holds in memory.

    What only its weights and tokenizer tell is null while a model on demand is not loaded, and its task
    where its folder could not be read. Raises
    ``LoadingError`` for one that is about to be loaded for good.
    """
    model, task = handle.model, handle.task
    if model is None and not handle.is_on_demand:
        raise LoadingError("the model is still loading")
    return {
        "id": handle.name,
        "object": "model.capabilities",
        "state": handle.state,
        "load": "on_demand" if handle.is_on_demand else "resident",
        "task": task,
        "context_tokens": model.context_tokens if model else None,
        "vocab_size": model.vocab_size if model else None,
        "dtype": model.dtype if model else None,
        "quantization": handle.quantization,
        "format": model.format if model else None,
        "adapters": adapters(handle, in_service),
        "engine": handle.engine_name,
        "dropped": handle.dropped,
        "compiled": handle.is_compiled,
        "supports": supports(model) if model else None,
        "tool_calls": call_form(model),
        "reasoning": reasoning_form(model),
        "defaults": defaults(model),
        "limits": {**limits(handle.settings), "num_draft_tokens": handle.num_draft_tokens},
        "kv_cache": kv_cache(handle),
        "memory": {"process_rss_bytes": psutil.Process().memory_info().rss},
        "routes": {path: parameters(body) for path, body in (routes_of(task) if task else {}).items()},
    }


def adapters(handle: ModelHandle, in_service: AdapterService) -> Adapters | None:
    """Those that are in service; None where the model takes none."""
    names = in_service.names_of(handle)
    if names is None:
        return None
    return {"names": names, "max_bytes": handle.settings.adapters_max_bytes}


def supports(model: Model) -> dict[str, bool]:
    """What a caller may ask of this model beside plain text."""
    if model.task != "generate":
        return dict.fromkeys(("chat", "tools", "infill"), False)
    return {"chat": model.has_chat_template, "tools": model.has_tool_template, "infill": model.has_infill}


def call_form(model: Model | None) -> str | None:
    """How its answers write tool calls; None where they write none."""
    if model is None or model.task != "generate" or not model.has_tool_template:
        return None
    return model.forms.calls.name


def reasoning_form(model: Model | None) -> str | None:
    """How they write reasoning; None where they write none."""
    found = model.forms.reasoning if model is not None and model.task == "generate" else None
    return None if found is None else found.name


def defaults(model: Model | None) -> dict[str, float] | None:
    """The model's own settings, which the native routes follow where a request is silent."""
    if model is None or model.task != "generate":
        return None
    names = ("temperature", "top_p", "top_k", "repetition_penalty")
    return {name: getattr(model.defaults, name) for name in names}


def limits(settings: Settings) -> dict[str, float | None]:
    """The server's bounds, which hold beside those of the parameters."""
    names = ("max_new_tokens", "default_new_tokens", "max_batch_size", "max_queue", "max_body_bytes")
    seconds = ("queue_timeout_s", "request_timeout_s")
    return {name: getattr(settings, name) for name in (*names, *seconds)}


def kv_cache(handle: ModelHandle) -> KvCache | None:
    """Memory of the KV cache, of one token and when it is full; None where transformers manages it."""
    memory = handle.kv_memory
    return None if memory is None else {"bytes_per_token": memory.bytes_per_token, "max_bytes": memory.max_bytes}


@functools.cache
def parameters(body: type[StrictBody]) -> dict[str, Parameter]:
    """Each field of a body with its types, bounds and description."""
    schema = body.model_json_schema()
    required = schema.get("required", [])
    return {name: parameter(field, name in required) for name, field in schema["properties"].items()}


def parameter(field: dict[str, Any], is_required: bool) -> Parameter:
    """One field: types without null, and the bounds of each."""
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    types = sorted({option.get("type", "object") for option in options})
    bounds = {name: option[name] for option in options for name in BOUNDS if name in option}
    described = {"description": field["description"]} if "description" in field else {}
    return {"type": types, "required": is_required, **cast(Bounds, {**bounds, **described})}
