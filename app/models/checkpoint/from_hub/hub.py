"""Where ``from_pretrained`` looks: a folder, the hub, or only the hub's cache. Inference thread."""

from __future__ import annotations

import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

from app.core.logs.logging import get_logger
from app.core.settings import Settings

log = get_logger("models")


def where_to_look(settings: Settings) -> dict[str, Any]:
    """Arguments that every ``from_pretrained`` of one model shares; a folder is never asked for at a hub."""
    return {
        "revision": settings.revision or "main",
        "trust_remote_code": settings.trust_remote_code,
        "local_files_only": Path(settings.model).exists() or not can_reach_hub(ENDPOINT),
    }


def can_reach_hub(endpoint: str) -> bool:
    """Whether the hub's name can be resolved, or a proxy would do that.

    Without this huggingface_hub 2.4 tries each file six times, 23 s in all, before it looks into its cache.
    """
    if HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    address = urlsplit(endpoint)
    try:
        socket.getaddrinfo(address.hostname, address.port or address.scheme)
    except OSError as error:
        log.warning("hub_unreachable", endpoint=endpoint, error=str(error), advice="set MODEL to a folder")
        return False
    return True
