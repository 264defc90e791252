"""A scheduler without a model: sequences, a cache whose entries tell whose they are, and steps that are checked."""

from __future__ import annotations

from app.core.errors import InternalError, RequestError
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.plan import Chunk, ClearRow, CopyRow, LoadStates, Plan, ScheduledStep, SwapRows
from app.engine.generation.scheduler import Limits, Scheduler


class PlainSequence:
    """What the scheduler sees of a sequence; its next token is a number that nobody else has."""

    def __init__(self, job: Job):
        self.job = job
        self.tokens = list(job.prompt_ids)
        self.num_cached = 0
        self.proposal: list[int] = []
        self.rate = 0.0
        self.noted: list[tuple[int, int]] = []

    @property
    def is_scored(self) -> bool:
        return self.job.params.num_prompt_logprobs is not None

    @property
    def draft_rate(self) -> float:
        return self.rate

    def note_draft(self, num_guessed: int, num_right: int) -> None:
        self.noted.append((num_guessed, num_right))

    def draft(self, room: int) -> list[int]:
        return self.proposal[: max(room, 0)]

    def fail(self, error: RequestError) -> None:
        self.job.fail(error)

    def accept(self, token: int) -> None:
        self.tokens.append(token)
        self.job.count_token()
        if self.job.usage.completion_tokens >= self.job.params.max_new_tokens:
            self.job.finish("length")


class PlainCache:
    """Rows of ``(owner, token)`` at each position: whose entry lies where.

    ``states`` are of the rows and behind them of snapshots: the owner, and all tokens that were read.
    """

    def __init__(self, num_rows: int, num_snapshots: int):
        self.rows: list[dict[int, tuple[bytes, int]]] = [{} for _ in range(num_rows)]
        self.states: list[tuple[bytes, list[int]]] = [(b"", [])] * (num_rows + num_snapshots)

    def make(self, plan: Plan) -> None:
        for move in plan.moves:
            match move:
                case SwapRows(a, b, num):
                    head_a, head_b = self._head(a, num), self._head(b, num)
                    self._put(a, head_b, num)
                    self._put(b, head_a, num)
                    self.states[a], self.states[b] = self.states[b], self.states[a]
                case CopyRow(source, target, num):
                    self._put(target, self._head(source, num), num)
                case LoadStates(source, target):
                    self.states[target] = self.states[source]
                case ClearRow(row):
                    self.rows[row], self.states[row] = {}, (b"", [])

    def write(self, row: int, start: int, tokens: list[int], owner: bytes) -> None:
        for at, token in enumerate(tokens, start):
            self.rows[row][at] = (owner, token)
        self.states[row] = (owner, [*self.states[row][1], *tokens] if start else list(tokens))

    def keep(self, chunk: Chunk, owner: bytes) -> None:
        """What is to be kept of the states of a chunk that was read."""
        for num_tokens, slot in chunk.snapshots:
            self.states[slot] = (owner, self.states[chunk.row][1][:num_tokens])

    def _head(self, row: int, num: int) -> dict[int, tuple[bytes, int]]:
        return {at: entry for at, entry in self.rows[row].items() if at < num}

    def _put(self, row: int, head: dict[int, tuple[bytes, int]], num: int) -> None:
        self.rows[row] = {at: entry for at, entry in self.rows[row].items() if at >= num} | head


class World:
    """A scheduler with a cache that it never sees; plays steps as the engine does and checks each plan."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.jobs: list[Job] = []
        self.started: list[PlainSequence] = []
        self.refuses = False
        self.scheduler: Scheduler[PlainSequence] = Scheduler(limits, self._start)
        self.cache = PlainCache(limits.max_running, limits.num_snapshots or 0)
        self._next_token = 1000

    def _start(self, job: Job) -> PlainSequence | None:
        if self.refuses:
            job.fail(InternalError())
            return None
        self.started.append(PlainSequence(job))
        return self.started[-1]

    def arrive(self, prompt: list[int], num_new: int, owner: bytes, **params: object) -> Job:
        job = Job("plan", prompt, SamplingParams(num_new, **params))
        job.owner = owner
        self.jobs.append(job)
        self.scheduler.add(job)
        return job

    def step(self, fault: str = "", at: int = 0, is_shared: bool = False) -> ScheduledStep[PlainSequence]:
        """``fault`` says which pass fails: that of the rows, or of the chunk ``at``."""
        before = len(self.scheduler._waiting)
        step = self.scheduler.schedule(0.0, is_shared=is_shared)
        assert before or not any(isinstance(move, CopyRow) for move in step.plan.moves)
        self._make_moves(step.plan)
        self._require_sound(step)
        failed = step.reading[at % len(step.reading)] if fault == "chunk" and step.reading else None
        # What the cache holds of each prompt is noted before any row moves.
        for sequence, chunk in zip(step.reading, step.plan.chunks, strict=True):
            if sequence is not failed:
                self.cache.write(chunk.row, chunk.start, chunk.tokens, sequence.job.owner)
                self.cache.keep(chunk, sequence.job.owner)
                sequence.num_cached += len(chunk.tokens)
        self._accept_rows(step, has_failed=fault == "rows")
        if failed is not None:
            failed.fail(InternalError())
            self.scheduler.release(failed, is_valid=False)
        for sequence in step.reading:
            if not sequence.job.has_ended and sequence.num_cached == len(sequence.tokens):
                self.scheduler.start_running(sequence)
                self._accept(sequence)
                if sequence.job.has_ended:
                    self.scheduler.release(sequence)
        self.scheduler.observe(step, 0.001)
        return step

    def _make_moves(self, plan: Plan) -> None:
        for move in plan.moves:
            if isinstance(move, CopyRow):
                # Nothing of one owner ever reaches a row that is another's.
                owners = {self.cache.rows[move.source][at][0] for at in range(move.num_tokens)}
                assert len(owners) == 1
            self.cache.make(Plan((move,), [], [], [], False))

    def _require_sound(self, step: ScheduledStep[PlainSequence]) -> None:
        """Rows of running first, none owned twice, each with its own entries, and no more than may be read."""
        plan, rows = step.plan, self.scheduler.rows
        running_at = [rows.index(sequence) for sequence in step.running]
        assert running_at == list(range(len(step.running)))
        taken = [rows.index(sequence) for sequence in rows.active]
        assert len(set(taken)) == len(taken) == rows.num_running + rows.num_prefilling
        assert taken == list(range(len(taken)))
        for sequence in rows.active:
            own = self.cache.rows[rows.index(sequence)]
            wanted = sequence.tokens[: sequence.num_cached]
            assert [own[at][1] for at in range(sequence.num_cached)] == wanted
            assert {own[at][0] for at in range(sequence.num_cached)} <= {sequence.job.owner}
            if self.limits.num_snapshots is not None and wanted:
                assert self.cache.states[rows.index(sequence)] == (sequence.job.owner, wanted)
        assert plan.num_prompt_tokens <= self.limits.chunk_tokens
        assert all(chunk.tokens for chunk in plan.chunks)
        assert len({chunk.row for chunk in plan.chunks}) == len(plan.chunks)
        assert all(chunk.row >= len(plan.starts) for chunk in plan.chunks)
        assert plan.starts == [sequence.num_cached for sequence in step.running]
        assert len({len(tokens) for tokens in plan.tokens}) <= 1
        for sequence, draft, tokens in zip(step.running, step.drafts, plan.tokens, strict=True):
            assert tokens[: 1 + len(draft)] == [sequence.tokens[-1], *draft]
            assert sequence.num_cached + len(tokens) <= self.limits.context_tokens
        assert not plan.is_mixed or (self.limits.can_mix and plan.chunks and not any(step.drafts))
        if any(sequence for sequence in rows.prefilling):
            assert plan.chunks, "a prompt that waits is read"

    def _accept_rows(self, step: ScheduledStep[PlainSequence], *, has_failed: bool) -> None:
        for row, (sequence, tokens) in enumerate(zip(step.running, step.plan.tokens, strict=True)):
            self.cache.write(row, step.plan.starts[row], tokens, sequence.job.owner)
        for sequence, draft in zip(step.running, step.drafts, strict=True):
            if has_failed:
                sequence.fail(InternalError())
                continue
            # The first guess holds, if there is one.
            sequence.num_cached += 1
            if draft:
                sequence.accept(draft[0])
            if not sequence.job.has_ended:
                sequence.num_cached += len(draft[:1])
                self._accept(sequence)
        for sequence in step.running:
            if sequence.job.has_ended:
                self.scheduler.release(sequence, is_valid=not has_failed)

    def _accept(self, sequence: PlainSequence) -> None:
        self._next_token += 1
        sequence.accept(self._next_token)
