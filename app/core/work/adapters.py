"""LoRA adapters as requests, the board and the engine pass them on: names, and what one changes. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Floats: TypeAlias = "npt.NDArray[np.float32]"


@dataclass(frozen=True, slots=True)
class AdapterName:
    """``version`` differs from that of an adapter of the same name that was there before: nothing of it is reused.

    ``stamp`` tells whether the folder still holds what was put into service (``adapter_folders.stamp_of``).
    """

    name: str
    folder: str
    version: int = 0
    stamp: str = ""

    @property
    def key(self) -> bytes:
        """What keeps its computed prefixes apart from all others'."""
        return f"\0{self.name}\0{self.version}".encode()


@dataclass(frozen=True, slots=True)
class Part:
    """The change of one layer: ``down`` ``(rank, in)``, then ``up`` ``(rank, out)``, which holds the scale."""

    down: Floats
    up: Floats

    @property
    def num_bytes(self) -> int:
        return self.down.nbytes + self.up.nbytes


@dataclass(eq=False)
class Adapter:
    """One in memory: its parts by the names of layers. ``is_gone``: nobody will name it any more."""

    name: AdapterName
    parts: dict[str, Part]
    is_gone: bool = False

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts.values())
