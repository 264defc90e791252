"""One package at a time for all workers that share a cache folder: who makes it, who waits, and what failed before.

A thread that may wait: the one of ``background.py``, or the inference thread while it loads with COMPILE=always.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.core.logs.logging import get_logger
from app.core.settings import Settings
from app.models.checkpoint.device_memory import free_bytes
from app.models.compiled.compile_child import MAX_S, Outcome, make_in_child
from app.models.compiled.compiled_step import store_of
from app.models.compiled.inductor import require_compiler
from app.models.compiled.package_facts import AnyShape, facts_of, key_of
from app.models.compiled.package_store import PackageError, Store, require_private

LOCK_FILE = ".lock"
# Between two looks for a package that another worker makes.
LOOK_S = 2.0
# Python, torch, inductor and the compiler (SmolLM2: 0.93 GB in all), beside the weights: mapped, once more merged, and,
# where the eager step that it is compared with has them packed, once more as they are not.
OWN_BYTES = 1 << 30
WEIGHT_COPIES = 3
# Data that a process may map is more than it touches: stacks and arenas are counted whole.
UNTOUCHED_BYTES = 2 << 30

log = get_logger("models")


@dataclass(frozen=True)
class Wish:
    """A package for ``shape``, made from the model of ``settings``; ``promised_bytes`` are free, but others'."""

    settings: Settings
    shape: AnyShape
    weight_bytes: int
    promised_bytes: int

    @property
    def key(self) -> str:
        return key_of(facts_of(self.shape))

    @property
    def needed_bytes(self) -> int:
        """Memory that making the package takes."""
        return OWN_BYTES + WEIGHT_COPIES * self.weight_bytes


def has_made(wish: Wish, within_s: float = MAX_S, is_wanted: Callable[[], bool] = lambda: True) -> str | None:
    """Have the package made, or wait until another worker has; None where it is there then, else why it is not.

    ``is_wanted`` is asked while another one works.
    """
    until_s = time.monotonic() + within_s
    store = store_of(wish.settings)
    try:
        while is_wanted():
            with locked(store) as is_ours:
                if is_ours:
                    return made(wish, store, until_s - time.monotonic())
            if (store.folder / wish.key).exists():
                return None
            if time.monotonic() > until_s:
                return f"another process has been compiling for {within_s:.0f} s"
            time.sleep(LOOK_S)
    except PackageError as error:
        return str(error)
    except OSError as error:
        return f"{store.folder}: {error.strerror or error}"
    return "nobody wants it any more"


def made(wish: Wish, store: Store, within_s: float) -> str | None:
    """The same, while nobody else compiles. Raises ``PackageError``."""
    if (store.folder / wish.key).exists():
        return None
    failures = Failures(store.folder)
    if (earlier := failures.of(wish.key)) is not None:
        return f"{earlier} (tried once by this server)"
    require_compiler()
    require_memory(wish)
    log.info("package_making", model=wish.settings.model_name, folder=str(store.folder))
    started_s = time.monotonic()
    outcome = make_in_child(wish.settings, wish.needed_bytes + UNTOUCHED_BYTES, within_s)
    if outcome.failure is not None:
        failures.note(wish.key, outcome.failure)
        return outcome.failure
    tell_made(wish, outcome, time.monotonic() - started_s)
    return None


def tell_made(wish: Wish, outcome: Outcome, seconds: float) -> None:
    """One line of the log."""
    told: dict[str, Any] = {name: outcome.about.get(name) for name in ("bytes", "eager_ms", "compiled_ms")}
    log.info("package_made", model=wish.settings.model_name, seconds=round(seconds, 1), **told)


def require_memory(wish: Wish) -> None:
    """Raises ``PackageError`` where the child would take memory that is somebody's."""
    free = max(free_bytes(torch.device("cpu")) - wish.promised_bytes, 0)
    if wish.needed_bytes > free:
        raise PackageError(
            f"compiling needs {wish.needed_bytes / 2**30:.2f} GiB of memory, {free / 2**30:.2f} GiB are free"
        )


@contextmanager
def locked(store: Store) -> Iterator[bool]:
    """Whether this process is the one that compiles into ``store``. Raises ``PackageError`` or ``OSError``."""
    store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_private(store.folder)
    lock = os.open(store.folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


class Failures:
    """What could not be compiled, by this server: a worker that takes the place of another does not try again.

    A server is known by its master's process id.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def of(self, key: str) -> str | None:
        """Why ``key`` could not be made; None where this server has not tried."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            noted = json.loads(self._file(key).read_text(encoding="utf-8"))
            if noted["server"] == os.getppid():
                return str(noted["reason"])
        return None

    def note(self, key: str, reason: str) -> None:
        """Keep it; on a full disk the next worker tries again."""
        with suppress(OSError):
            self._file(key).write_text(json.dumps({"server": os.getppid(), "reason": reason}), encoding="utf-8")

    def _file(self, key: str) -> Path:
        return self._folder / f".failed-{key}"
