"""Whether a name that is no folder can be a model of the hub: told before anything slow is imported. No network.

A mistyped relative path such as ``models/nope`` looks like a hub id.
"""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

from app.core.errors import ModelLoadError

# The characters that the hub allows; huggingface_hub's own check costs an HTTP library's import.
_HUB_ID = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")


def check_hub_id(source: str) -> None:
    """Raise ``ModelLoadError`` where ``source``, which is not there as a path, is no hub id that can be fetched."""
    if not _HUB_ID.fullmatch(source):
        raise ModelLoadError(f"the model folder {source} does not exist")
    if is_cached(source):
        return
    if (beside := Path(source).parent).is_dir():
        raise ModelLoadError(
            f"the model folder {source} does not exist; {beside} does, so this is taken for a path: "
            "for the hub's model of this name start elsewhere"
        )
    if HF_HUB_OFFLINE:
        raise ModelLoadError(
            f"the model folder {source} does not exist; as a hub id it is not in the cache {HF_HUB_CACHE}, "
            "and HF_HUB_OFFLINE is set"
        )


def is_cached(hub_id: str) -> bool:
    """Whether the hub's cache holds a config of this model, of whichever revision."""
    folder = Path(HF_HUB_CACHE) / f"models--{hub_id.replace('/', '--')}"
    return any(folder.glob("snapshots/*/config.json"))
