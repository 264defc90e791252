"""Where the states of rows are kept behind some of their tokens, so that a new sequence can go on from there.

A state says nothing of the tokens before its last one: it can be taken up behind exactly as many as it was kept behind.
So it is kept where sequences are likely to part: before the last token of each prompt, where a prompt has parted from
another, and in between. Inference thread only; knows no torch.
"""

from __future__ import annotations

from collections import OrderedDict

# What is shorter is read again as fast as its state is copied.
LEAST_TOKENS = 8
# Between the beginning and the end of a prompt states are kept behind multiples of these many tokens, or of more.
SPACING_TOKENS = 64
NUM_BETWEEN = 2
# Of prompts of at least so many tokens: what is kept cuts the reading of a prompt in two.
LEAST_BETWEEN = 256


class Kept:
    """What is kept of one row: slots by the number of tokens behind which they were.

    ``num_tokens``: of a free row, behind how many tokens the states are that lie in it.
    """

    def __init__(self) -> None:
        self.num_tokens = 0
        self.slots: dict[int, int] = {}


class Snapshots:
    """Gives out the slots ``first .. first + number``; the one that was not used for longest is taken anew."""

    def __init__(self, first: int, number: int):
        self._free = list(range(first, first + number))
        self._used: OrderedDict[int, tuple[Kept, int]] = OrderedDict()

    def add(self, kept: Kept, num_tokens: int) -> int | None:
        """A slot for the states of a row behind ``num_tokens``; None where there are no slots at all."""
        if not self._free and not self._used:
            return None
        if num_tokens in kept.slots:
            self._release(kept, num_tokens)
        if not self._free:
            oldest, length = next(iter(self._used.values()))
            self._release(oldest, length)
        slot = self._free.pop()
        kept.slots[num_tokens] = slot
        self._used[slot] = (kept, num_tokens)
        return slot

    def use(self, kept: Kept, num_tokens: int) -> int:
        """The slot of what was kept behind ``num_tokens``."""
        slot = kept.slots[num_tokens]
        self._used.move_to_end(slot)
        return slot

    def forget_beyond(self, kept: Kept, num_tokens: int) -> None:
        """The row holds other tokens there."""
        for length in [length for length in kept.slots if length > num_tokens]:
            self._release(kept, length)

    def _release(self, kept: Kept, num_tokens: int) -> None:
        slot = kept.slots.pop(num_tokens)
        del self._used[slot]
        self._free.append(slot)


def wished(num_prompt: int, num_cached: int, num_common: int) -> list[int]:
    """Behind how many tokens of a prompt to keep states, in order, where the first ``num_cached`` are not read.

    ``num_common`` of its tokens were found elsewhere: where one prompt parted from another a third may.
    """
    step = SPACING_TOKENS * -(-num_prompt // (SPACING_TOKENS * (NUM_BETWEEN + 1)))
    between = range(step, num_prompt - 1, step) if num_prompt >= LEAST_BETWEEN else ()
    lengths = {num_prompt - 1, num_common, *between}
    return sorted(length for length in lengths if length > num_cached and length >= LEAST_TOKENS)
