"""The Python client speaks every route that the server describes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.client import Client

SAID = [{"role": "user", "content": "a"}]
# How a program reaches each route; those in other APIs' forms are asked as they are.
SPOKEN: dict[str, Any] = {
    "/complete": lambda client: client.complete("a"),
    "/chat": lambda client: client.chat("a"),
    "/infill": lambda client: client.infill("a", "b"),
    "/fill-mask": lambda client: client.fill_mask("a"),
    "/translate": lambda client: client.translate("a", "de"),
    "/summarize": lambda client: client.summarize("a"),
    "/classify": lambda client: client.classify("a"),
    "/zero-shot": lambda client: client.zero_shot("a", ["b"]),
    "/entities": lambda client: client.entities("a"),
    "/answer": lambda client: client.answer("a", "b"),
    "/rerank": lambda client: client.rerank("a", ["b"]),
    "/score": lambda client: client.score("a", ["b"]),
    "/similarity": lambda client: client.similarity("a", ["b"]),
    "/tokenize": lambda client: client.tokenize("a"),
    "/detokenize": lambda client: client.detokenize([1]),
    "/v1/chat/completions": lambda client: client.converse(SAID),
    "/v1/embeddings": lambda client: client.embed("a"),
    "/v1/capabilities": lambda client: client.models(),
    "/v1/messages/count_tokens": lambda client: client.count_tokens(SAID),
    "/metrics": lambda client: client.text("/metrics"),
    "/docs": lambda client: client.text("/docs"),
}
_MODEL = "/v2/models/{name}"
AS_THEY_ARE = {
    **dict.fromkeys(("/", "/generate", "/embed", "/predict", "/markdown", "/v1/rerank", "/v2/rerank"), "ask"),
    **dict.fromkeys(("/v1/score", "/livez", "/readyz", "/health", "/props", "/info", "/openapi.json"), "ask"),
    **dict.fromkeys(("/v1/models", "/v1/models/{name}", "/v2", "/v2/health/live", "/v2/health/ready"), "ask"),
    **dict.fromkeys((_MODEL, f"{_MODEL}/ready", f"{_MODEL}/infer", f"{_MODEL}/versions/{{version}}"), "ask"),
    **dict.fromkeys((f"{_MODEL}/versions/{{version}}/ready", f"{_MODEL}/versions/{{version}}/infer"), "ask"),
    **dict.fromkeys(("/v1/completions", "/v1/fim/completions", "/v1/responses", "/v1/messages"), "events"),
    **dict.fromkeys(("/v1/load_lora_adapter", "/v1/unload_lora_adapter"), "ask"),
    "/generate_stream": "events",
}


class SentError(Exception):
    """Where a request would have gone."""


class Recording(Client):
    def _post(self, path, body, is_whole=False):
        raise SentError(path)


def reach(client, path):
    if path in SPOKEN:
        return SPOKEN[path](client)
    return getattr(client, AS_THEY_ARE[path])(path, {"x": 1})


def test_no_route_of_the_description_is_missing(client):
    described = set(client.get("/openapi.json").get_json()["paths"])
    assert described == set(SPOKEN) | set(AS_THEY_ARE)


@pytest.mark.parametrize("path", sorted(SPOKEN.keys() | AS_THEY_ARE))
def test_every_route_is_reached(path):
    with pytest.raises(SentError, match=re.escape(path)):
        reach(Recording("http://127.0.0.1:1"), path)


def test_routes_in_other_forms_are_told_as_they_come(client, world):
    from tests.contract.loopback import serving

    body = {"model": "m", "max_tokens": 8, "messages": SAID}
    with serving(client.application) as url:
        own = Client(url, max_retries=0)
        assert own.ask("/livez") == {"status": "ok"}
        kinds = [event["type"] for event in own.events("/v1/messages", {**body, "model": world.inference.model.name})]
        assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
        [*_, last] = own.events("/v1/completions", {"prompt": "a", "max_tokens": 3})
        assert last["choices"][0]["finish_reason"]
        assert "forklift_requests_total" in own.text("/metrics")
