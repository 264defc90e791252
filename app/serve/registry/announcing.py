"""Puts the parts together: what is checked before a server starts, and what each of its workers begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.client.client_errors import ClientError, SetupError
from app.client.discovery.registry_address import ListAddress, ZooKeeperAddress, registry_address
from app.client.discovery.server_entry import entry_bytes
from app.client.discovery.zookeeper_link import require_usable
from app.core.errors import StartError
from app.core.parsing.addresses import is_tcp
from app.core.settings import Settings
from app.serve.context import WorkerContext
from app.serve.registry.announcement import Announcement
from app.serve.registry.own_address import own_grpc, own_url
from app.serve.registry.registrar import Registrar
from app.serve.registry.registration import Registration
from app.serve.registry.zookeeper_node import ZooKeeperNode

NO_ADDRESS = "FORKLIFT_ANNOUNCE_URL is needed where the server listens on no host and port"


def check_registry(settings: Settings) -> None:
    """Raise ``StartError`` with one line for what could not be announced. Connects to nothing."""
    if not settings.registry:
        return
    try:
        require_usable(_address(settings))
        if not settings.announce_url and not any(map(is_tcp, settings.addresses)):
            raise SetupError(NO_ADDRESS)
        url = settings.announce_url or "http://localhost"
        entry_bytes(Announcement(settings, "check", url, 1).entry((), ()))
    except ClientError as failure:
        raise StartError(f"FORKLIFT_REGISTRY: {failure}") from None


def begin(context: WorkerContext, registration: Registration, listening: Iterable[Any]) -> Registrar:
    """A registrar that runs; ``listening``: names of the sockets that are open."""
    settings, address = context.settings, _address(context.settings)
    url = own_url(settings, listening, address.hosts)
    if url is None:
        raise StartError(NO_ADDRESS)
    grpc = own_grpc(settings, address.hosts)
    announcement = Announcement(settings, registration.server_id, url, len(context.board), grpc)
    made = Registrar(context, registration, announcement, lambda: ZooKeeperNode(address, registration.server_id))
    made.start()
    return made


def _address(settings: Settings) -> ZooKeeperAddress:
    address = registry_address(settings.registry)
    if isinstance(address, ListAddress):
        raise SetupError("a list is for clients: a server is in it by its address, and has nothing to announce")
    return address
