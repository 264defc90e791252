"""Which sequence owns which row of the KV cache, and what the rows still hold.

Rows are kept in order: running ones first, then those being prefilled, then free ones. So a decode
step works on the first rows of the buffers, with no gathering. A free row keeps its entries until
a new sequence takes it; the one with the longest common prefix is taken first. What is to happen to
the entries is noted as data. Inference thread; knows no torch.
"""

from __future__ import annotations

from collections import Counter
from typing import Generic

from app.core.work.jobs import Job
from app.engine.generation.plan import AnySequence, LoadStates, Move
from app.engine.kv.reach import WHOLE, Reach
from app.engine.kv.row import Place, Row
from app.engine.kv.row_layout import RowLayout, WholeRows
from app.engine.kv.snapshots import Snapshots, wished


class RowTable(Generic[AnySequence]):
    """Assigns rows and keeps them in order; ``take_moves`` tells what the cache has to do for that.

    ``layout`` says what rows are in its memory.
    """

    def __init__(
        self,
        num_rows: int,
        reuse_prefix: bool,
        reach: Reach = WHOLE,
        num_snapshots: int | None = None,
        layout: RowLayout | None = None,
    ):
        self._rows = [Row[AnySequence]() for _ in range(num_rows)]
        self._layout = layout or WholeRows()
        self._reuse_prefix = reuse_prefix
        self._reach = reach
        self._snapshots = None if num_snapshots is None else Snapshots(num_rows, num_snapshots)
        self._moves: list[Move] = []
        self._clock = 0
        self._peak = 0
        self.num_running = 0
        self.num_prefilling = 0

    @property
    def num_free(self) -> int:
        return len(self._rows) - self.num_running - self.num_prefilling

    @property
    def running(self) -> list[AnySequence]:
        """Sequences in rows 0, 1, .. in order."""
        return [_owner(row) for row in self._rows[: self.num_running]]

    @property
    def active(self) -> list[AnySequence]:
        """Every sequence that has a row, in the rows' order."""
        return [_owner(row) for row in self._rows[: self.num_running + self.num_prefilling]]

    @property
    def prefilling(self) -> list[AnySequence]:
        """Sequences that wait for, or are in, prefill: first come first, one of each request before a second of any."""
        rows = self._rows[self.num_running : self.num_running + self.num_prefilling]
        ordered = sorted((_owner(row) for row in rows), key=lambda sequence: sequence.job.timings.created_s)
        return in_turns(ordered)

    def index(self, sequence: AnySequence) -> int:
        """The row that ``sequence`` has once the moves so far are made."""
        return next(i for i, row in enumerate(self._rows) if row.sequence is sequence)

    def take_moves(self) -> tuple[Move, ...]:
        """What the cache has to do, in order, before the next pass; each is told once."""
        moves, self._moves = tuple(self._moves), []
        return moves

    def place_for(self, job: Job) -> Place | None:
        """The free row for ``job``, where there is one, and memory for what it will hold at most."""
        if not self.num_free:
            return None
        place = self._place(job)
        num_missing = self._layout.num_missing(num_tokens_of(job), place.num_shared, self._spared(place))
        return place if num_missing <= 0 else None

    def take(self, sequence: AnySequence, place: Place) -> None:
        """Give ``sequence`` the free row that was found for its job just now, keeping the entries of a prefix it shares
        with a sequence of its own owner.

        Nobody may learn from the number of reused tokens, or from the time, what another one's prompt was.
        At least one prompt token is left to prefill, since its logits choose the next one. A prompt
        that is to be scored needs the logits of all its tokens, so it shares nothing.
        """
        job = sequence.job
        self._make_room(job, place)
        self._layout.claim(place.row, num_tokens_of(job), place.num_shared)
        if place.donor != place.row:
            self._moves += self._layout.share(place.donor, place.row, place.num_shared)
        self._layout.keep(place.row, place.num_shared)
        row, num_shared = self._rows[place.row], place.num_shared
        self._take_states(place.donor, place.row, num_shared)
        row.wished = wished(len(job.prompt_ids), num_shared, place.num_common) if self._keeps_states else []
        row.num_written = self._rows[place.donor].num_written if num_shared else 0
        row.kept = []
        row.owner = job.owner
        row.sequence = sequence
        sequence.num_cached = job.usage.cached_tokens = num_shared
        self._swap(place.row, self.num_running + self.num_prefilling)
        self.num_prefilling += 1

    def start_running(self, sequence: AnySequence) -> None:
        """``sequence`` is prefilled: move it to the rows that decode together."""
        self._swap(self.index(sequence), self.num_running)
        self.num_prefilling -= 1
        self.num_running += 1

    def release(self, sequence: AnySequence, *, is_valid: bool = True) -> None:
        """Free the row of ``sequence``; its entries stay for reuse unless they may be wrong, and then are cleared."""
        at = self.index(sequence)
        row = self._rows[at]
        row.note_written()
        if not is_valid:
            self._moves += self._layout.clear(at)
        row.kept = row.tokens if is_valid and self._reuse_prefix else []
        self._layout.keep(at, len(row.kept))
        self._layout.claim(at, 0, 0)
        row.states.num_tokens = len(row.kept)
        self._forget_states(row, len(row.kept))
        self._peak = max(self._peak, sequence.num_cached)
        row.sequence = None
        self._clock += 1
        row.last_used = self._clock
        if at < self.num_running:
            self.num_running -= 1
            self._swap(at, self.num_running)
            self._swap(self.num_running, self.num_running + self.num_prefilling)
        else:
            self.num_prefilling -= 1
            self._swap(at, self.num_running + self.num_prefilling)

    def take_peak(self) -> int:
        """Entries of the longest row that was in use since the last call."""
        peak = max([self._peak, *(len(sequence.tokens) for sequence in self.active)])
        self._peak = 0
        return peak

    def forget_beyond(self, num_tokens: int) -> None:
        """Free rows keep no more than ``num_tokens`` entries."""
        for index in range(self.num_running + self.num_prefilling, len(self._rows)):
            self._shorten(index, num_tokens)

    def reading(self, sequence: AnySequence, end: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """The row of ``sequence``, whose first ``end`` tokens will be read; what of its states to keep, and where."""
        at = self.index(sequence)
        row, found = self._rows[at], []
        while self._snapshots is not None and row.wished and row.wished[0] <= end:
            num_tokens = row.wished.pop(0)
            if (slot := self._snapshots.add(row.states, num_tokens)) is not None:
                found.append((num_tokens, slot))
        return at, tuple(found)

    def _place(self, job: Job) -> Place:
        """The free row for ``job``, and which row has the most of its prompt: that one itself where it can be."""
        prompt = [] if job.params.num_prompt_logprobs is not None else job.prompt_ids
        common = [self._common(row, prompt) if row.owner == job.owner else 0 for row in self._rows]
        shared = [self._usable(row, number) for row, number in zip(self._rows, common, strict=True)]
        free = range(self.num_running + self.num_prefilling, len(self._rows))
        chosen = max(free, key=lambda i: (shared[i], -self._rows[i].last_used))
        if max(shared) > shared[chosen]:
            # The donor is busy: its sequence goes on, so it is copied, or referred to, by the oldest row.
            oldest = min(free, key=lambda i: self._rows[i].last_used)
            return Place(oldest, shared.index(max(shared)), max(shared), max(common))
        return Place(chosen, chosen, shared[chosen], max(common))

    def _spared(self, place: Place) -> list[tuple[int, int]]:
        """Free rows, oldest first, and how many of their entries are wanted in that place."""
        free = range(self.num_running + self.num_prefilling, len(self._rows))
        oldest = sorted(free, key=lambda i: self._rows[i].last_used)
        return [(i, place.num_shared if i == place.donor else 0) for i in oldest]

    def _make_room(self, job: Job, place: Place) -> None:
        """Forget what free rows hold, the oldest first, until there is room."""
        for index, num_kept in self._spared(place):
            if self._layout.num_missing(num_tokens_of(job), place.num_shared) <= 0:
                return
            self._shorten(index, num_kept)

    def _shorten(self, index: int, num_tokens: int) -> None:
        """A free row keeps no more than so many entries."""
        row = self._rows[index]
        if len(row.kept) > num_tokens:
            row.kept = row.kept[:num_tokens]
            row.states.num_tokens = 0
            self._forget_states(row, num_tokens)
        self._layout.keep(index, len(row.kept))

    @property
    def _keeps_states(self) -> bool:
        return self._snapshots is not None and self._reuse_prefix

    def _common(self, row: Row[AnySequence], prompt: list[int]) -> int:
        return common_prefix(row.tokens, prompt[:-1]) if self._reuse_prefix else 0

    def _usable(self, row: Row[AnySequence], num_common: int) -> int:
        """The most of ``num_common`` tokens behind which a sequence can go on in ``row``."""
        row.note_written()
        if self._snapshots is None:
            return self._reach.usable(row.num_written, num_common)
        lengths = (length for length in (row.num_in_states, *row.states.slots) if length <= num_common)
        return max((self._reach.usable(row.num_written, length) for length in lengths), default=0)

    def _take_states(self, donor: int, chosen: int, num_shared: int) -> None:
        """Have the row ``chosen`` go on from the states of ``donor`` behind so many tokens, and keep what holds."""
        if self._snapshots is None:
            return
        row = self._rows[donor]
        if num_shared and num_shared != row.num_in_states:
            self._moves.append(LoadStates(self._snapshots.use(row.states, num_shared), chosen))
        elif num_shared and donor != chosen:
            self._moves.append(LoadStates(donor, chosen))
        self._forget_states(self._rows[chosen], num_shared if donor == chosen else 0)

    def _forget_states(self, row: Row[AnySequence], num_tokens: int) -> None:
        if self._snapshots is not None:
            self._snapshots.forget_beyond(row.states, num_tokens)

    def _swap(self, a: int, b: int) -> None:
        if a == b:
            return
        rows = self._rows
        self._moves += self._layout.swap(a, b, max(len(rows[a].tokens), len(rows[b].tokens)))
        rows[a], rows[b] = rows[b], rows[a]


def num_tokens_of(job: Job) -> int:
    """Entries that the row of ``job`` will have at most."""
    return len(job.prompt_ids) + job.params.max_new_tokens


def common_prefix(a: list[int], b: list[int]) -> int:
    """Number of equal items at the front, by bisection over slices (compared in C)."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def in_turns(sequences: list[AnySequence]) -> list[AnySequence]:
    """The first of each request, then the second of each, and so on."""
    counts: Counter[object] = Counter()
    places = []
    for sequence in sequences:
        places.append(counts[sequence.job.turn])
        counts[sequence.job.turn] += 1
    return [sequence for _, sequence in sorted(zip(places, sequences, strict=True), key=lambda pair: pair[0])]


def _owner(row: Row[AnySequence]) -> AnySequence:
    assert row.sequence is not None
    return row.sequence
