"""How far back what a row holds may be taken up again, where layers keep the last entries only.

Inference thread only; knows no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reach:
    """Rings of ``ring`` entries, of which the oldest ``slack`` are seen by no query behind the newest one.

    ``ring`` None: every layer keeps all entries.
    """

    ring: int | None = None
    slack: int = 0

    @classmethod
    def of(cls, layers: Sequence[tuple[int, int]]) -> Reach:
        """Of the sizes and slacks of all layers that are rings."""
        return cls(min(ring for ring, _ in layers), min(slack for _, slack in layers)) if layers else cls()

    def usable(self, num_written: int, num_shared: int) -> int:
        """``num_shared`` where a sequence can go on behind so many entries of a row in which ``num_written`` were
        written, else 0: what it would see next is overwritten."""
        is_whole = self.ring is None or num_written <= self.ring
        return num_shared if is_whole or num_written - num_shared <= self.slack else 0

    def without(self, num_tokens: int) -> Reach:
        """The same where so many entries may have been written behind those that are known of."""
        return Reach(self.ring - num_tokens, self.slack - num_tokens) if self.ring is not None else self


WHOLE = Reach()
