"""Which LoRA adapters the folders of FORKLIFT_ADAPTERS hold, by name; nothing of them is read. Master, HTTP threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from app.core.errors import SettingsError
from app.core.settings import Settings
from app.core.work.adapters import AdapterName

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MAX_ADAPTERS = 1000


def is_adapter(root: str, name: str) -> bool:
    """Whether the folder ``root`` holds an adapter of this name; a name leads nowhere else."""
    is_plain = name.isprintable() and not name.startswith(".") and "/" not in name
    try:
        return is_plain and (Path(root) / name / CONFIG).is_file()
    except OSError:
        return False


def adapters_in(root: str) -> list[str]:
    """The names of the adapters in the folder ``root``. Raises ``SettingsError``."""
    try:
        names = sorted(entry.name for entry in os.scandir(root))
    except OSError as error:
        raise SettingsError(f"FORKLIFT_ADAPTERS: {root} cannot be read: {error.strerror}") from None
    found = [name for name in names if is_adapter(root, name)]
    if len(found) > MAX_ADAPTERS:
        raise SettingsError(f"FORKLIFT_ADAPTERS: {root} holds {len(found)} adapters, of {MAX_ADAPTERS} at most")
    return found


def stamp_of(folder: str | Path) -> str:
    """Differs once an adapter's files are others: their sizes, and when they were written; "" where one is missing."""
    try:
        found = [(Path(folder) / name).stat() for name in (CONFIG, WEIGHTS)]
    except OSError:
        return ""
    return " ".join(f"{one.st_size}:{one.st_mtime_ns}" for one in found)


def adapters_at_start(settings: Settings) -> Iterator[tuple[str, AdapterName]]:
    """Each adapter that is served from the start, with its model's name.

    Raises ``SettingsError`` where two would have one name, or one has a model's.
    """
    seen = {plan.name: f"the model {plan.name}" for plan in settings.plans}
    for plan in settings.plans:
        root = plan.settings.adapters
        for name in adapters_in(root) if root is not None else ():
            if (other := seen.setdefault(name, f"the adapter {root}/{name}")) != f"the adapter {root}/{name}":
                raise SettingsError(f"FORKLIFT_ADAPTERS: the adapter {root}/{name} has the name of {other}")
            folder = str(Path(root or "") / name)
            yield plan.name, AdapterName(name, folder, stamp=stamp_of(folder))
