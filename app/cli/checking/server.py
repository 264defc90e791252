"""A server that runs, asked over HTTP: there, ready, every slot in order, the key right."""

from __future__ import annotations

from typing import Any

from app.cli.checking.findings import Finding, Findings
from app.cli.connection import CommandError, Server, told


def check(server: Server) -> Findings:
    """Stops at the first fault that makes the rest pointless."""
    try:
        live = server.get("/livez")
    except CommandError as error:
        yield Finding("server", "fault", error.message, "start it, or check the address, firewall and proxies")
        return
    if live.status_code != 200:
        text = f"{server.url}/livez answered {live.status_code}"
        yield Finding("server", "fault", text, "is this a Forklift server, and no proxy before it?")
        return
    yield Finding("server", "ok", f"{server.url} answers")
    yield from _check_ready(server)
    yield from _check_key(server)


def _check_ready(server: Server) -> Findings:
    response = server.get("/readyz")
    try:
        body: dict[str, Any] = response.json()
        slots = body["slots"]
    except (ValueError, KeyError):
        yield Finding("ready", "fault", f"{server.url}/readyz answered {response.status_code}, no JSON of slots")
        return
    text = f"the server is {body['state']}"
    if response.status_code == 200:
        yield Finding("ready", "ok", text)
    else:
        yield Finding("ready", "fault", text, "wait until it has loaded; its log says more")
    for row in slots:
        if row["state"] != "ready":
            text = f"worker slot {row['slot']} is {row['state']}"
            yield Finding("slots", "warning", text, "its log says why")


def _check_key(server: Server) -> Findings:
    response = server.get("/v1/models")
    if response.status_code == 401:
        yield Finding("key", "fault", "the server wants another API key", "give --api-key or FORKLIFTCLIENT_API_KEY")
    elif response.ok:
        names = ", ".join(str(one["id"]) for one in response.json()["data"])
        yield Finding("models", "ok", names)
    else:
        text = f"/v1/models answered {response.status_code}: {told(response)}"
        yield Finding("models", "fault", text, "its log says why")
