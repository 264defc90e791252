"""A server that runs, asked over HTTP: there, ready, every slot in order, the key right."""

from __future__ import annotations

from typing import Any

from app.cli.checking.findings import Finding, Findings
from app.cli.server_connection import CommandError, Server, listed
from app.client import ForeignAnswerError


def check(server: Server) -> Findings:
    """Stops at the first fault that makes the rest pointless."""
    try:
        live = server.get("/livez")
    except CommandError as error:
        yield Finding("server", "fault", error.message, "start it, or check the address, firewall and proxies")
        return
    if live.status != 200:
        text = f"{server.shown_url}/livez answered {live.status}"
        yield Finding("server", "fault", text, "is this a Forklift server, and no proxy before it?")
        return
    yield Finding("server", "ok", f"{server.shown_url} answers")
    yield from _check_ready(server)
    yield from _check_key(server)


def _check_ready(server: Server) -> Findings:
    response = server.get("/readyz")
    try:
        body = response.json()
        state, slots = str(body["state"]), [(row["slot"], row["state"]) for row in body["slots"]]
    except (ForeignAnswerError, ValueError, KeyError, TypeError):
        yield Finding("ready", "fault", f"{server.shown_url}/readyz answered {response.status}, no JSON of slots")
        return
    text = f"the server is {state}"
    if response.status == 200:
        yield Finding("ready", "ok", text)
    else:
        yield Finding("ready", "fault", text, "wait until it has loaded; its log says more")
    yield from _check_registry(body)
    for slot, state in slots:
        if state != "ready":
            yield Finding("slots", "warning", f"worker slot {slot} is {state}", "its log says why")


def _check_registry(body: dict[str, Any]) -> Findings:
    """Only of a server that has one."""
    registered = body.get("registry")
    if not isinstance(registered, dict):
        return
    if registered.get("connected") is True:
        yield Finding("registry", "ok", "the server stands in its registry")
    else:
        advice = "the server serves; see to ZooKeeper, and to FORKLIFT_REGISTRY"
        yield Finding("registry", "warning", "the server's registry does not answer", advice)


def _check_key(server: Server) -> Findings:
    response = server.get("/v1/models")
    if response.status == 401:
        yield Finding("key", "fault", "the server wants another API key", "give --api-key or FORKLIFTCLIENT_API_KEY")
        return
    try:
        names = ", ".join(listed(response))
    except CommandError as error:
        yield Finding("models", "fault", error.message, "its log says why")
        return
    yield Finding("models", "ok", names)
