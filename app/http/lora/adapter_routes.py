"""``POST /v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``: only for callers with a key. HTTP threads."""

from __future__ import annotations

from flask import Response

from app.core.errors import KeysNeededError
from app.http.answers.system_types import AdapterChange
from app.http.application.error_envelope import json_response
from app.http.application.restful import Route
from app.http.lora.adapter_bodies import LoadAdapterBody, UnloadAdapterBody
from app.http.reading.body import read_body


class LoadAdapter(Route):
    """Serves one more adapter, on all workers."""

    def post(self) -> Response:
        require_keys(self.service.settings.api_keys)
        body = read_body(LoadAdapterBody)
        may_replace = bool(body.load_inplace)
        model = self.service.adapters.load(body.lora_name, body.lora_path, body.model, may_replace=may_replace)
        return changed("loaded", body.lora_name, model)


class UnloadAdapter(Route):
    """Serves an adapter no more; requests that run go on."""

    def post(self) -> Response:
        require_keys(self.service.settings.api_keys)
        body = read_body(UnloadAdapterBody)
        return changed("unloaded", body.lora_name, self.service.adapters.unload(body.lora_name))


def require_keys(keys: tuple[str, ...]) -> None:
    """What is served is changed by nobody whom the operator does not know. Raises ``KeysNeededError``."""
    if not keys:
        raise KeysNeededError("adapters are loaded and unloaded only on a server with FORKLIFT_API_KEYS")


def changed(what: str, name: str, model: str) -> Response:
    answer: AdapterChange = {"status": what, "lora_name": name, "model": model}
    return json_response(answer)
