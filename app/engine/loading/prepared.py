"""A model that is loaded, checked and ready to serve. Inference thread; others read what it is."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.settings import Settings
from app.core.states import EngineName
from app.engine.checks.features import Model
from app.engine.engine_interface import Engine
from app.engine.runners.graphs.recorder import Recorded


@dataclass(frozen=True)
class KvMemory:
    """Memory of the KV cache: of one token, and when every row is full."""

    bytes_per_token: int
    max_bytes: int


@dataclass(frozen=True)
class Prepared:
    """``kv_memory`` is None where there is no cache, or transformers manages it.

    ``engine_name`` is the way it is run, ``dropped`` what failed the check at the load and was left out, ``settings``
    the ones that hold without it; the check took ``check_s``. ``is_compiled``: it decodes on a compiled step.
    ``graphs``: its recorded steps, where it records any.
    """

    model: Model
    engine: Engine
    kv_memory: KvMemory | None
    engine_name: EngineName
    dropped: tuple[str, ...]
    settings: Settings
    check_s: float
    is_compiled: bool = False
    graphs: Recorded | None = None

    @property
    def kv_growth_bytes(self) -> int:
        """What the KV cache has not taken yet, and will where every sequence grows as long as can be."""
        cache = self.engine.cache
        return 0 if self.kv_memory is None or cache is None else self.kv_memory.max_bytes - cache.num_bytes
