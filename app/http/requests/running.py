"""One generation request while it runs: its jobs under one place, until the last event of the last job.

HTTP threads. A ``RunningRequest`` holds a place and one job or several (several choices, prompts or
holes); closing it, at any time and any number of times, stops the jobs and gives the place back once
the engine has let go of every sequence. Where one job fails the request fails, and the others stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from app.core.errors import InternalError, RequestError
from app.core.patience import overdue
from app.core.work.jobs import BaseJob, JobOptions, Timings, TokenCounts
from app.http.answers.native_types import Usage
from app.http.requests.caller import CLIENT_CHECK_S, ClientGoneError
from app.http.requests.job_output import Batch, JobOutput, Piece

if TYPE_CHECKING:
    from app.http.requests.admitted import AdmittedRequest

# The engine ends overdue jobs itself; only one that hangs is this late.
DEADLINE_GRACE_S = 2.0
# How long the HTTP thread itself waits for the engine to let go of a cancelled sequence.
RELEASE_WAIT_S = 2.0


class RunningRequest:
    """Jobs that run, and the place they take together.

    ``num_per_prompt`` jobs in a row share a prompt, whose tokens are counted once.
    """

    def __init__(self, admitted: AdmittedRequest, num_per_prompt: int = 1):
        self.request_id = admitted.caller.request_id
        self.model = admitted.handle.name
        self.vocabulary = admitted.model.vocabulary
        self.error: RequestError | None = None
        self.outputs: list[JobOutput] = []
        self._admitted = admitted
        self._news = threading.Event()
        self._num_per_prompt = num_per_prompt
        self._planned: list[BaseJob] = []
        self._has_started = False
        self._is_closed = False

    def job_options(self, *, is_alone: bool) -> JobOptions:
        """What every job of this request gets; ``is_alone``: it has no other, so that its reader waits for it alone."""
        deadlines = self._admitted.deadlines
        return {
            "queue_deadline_s": deadlines.queue_s,
            "deadline_s": deadlines.total_s,
            "on_started": self._note_start,
            "on_event": None if is_alone else self._news.set,
        }

    def plan(self, jobs: Sequence[BaseJob]) -> None:
        """What ``start`` will submit."""
        self._planned = list(jobs)

    def start(self) -> None:
        """Submit what was planned. Raises a ``RequestError``; some jobs may run then, until ``fail`` stops them."""
        for job in self._planned:
            self._submit(job)

    def _submit(self, job: BaseJob) -> None:
        self._admitted.submit(job)
        self.outputs.append(JobOutput(job))

    def _note_start(self) -> None:
        """A job leaves the queue: its place moves, and behind the first one the others may wait. Inference thread."""
        self._admitted.start()
        if self._has_started:
            return
        self._has_started = True
        for job in self._planned:
            if job.timings.started_s is None:
                job.queue_deadline_s = float("inf")

    @property
    def jobs(self) -> list[BaseJob]:
        return [output.job for output in self.outputs]

    @property
    def text(self) -> str:
        """The first completion so far."""
        return self.outputs[0].text if self.outputs else ""

    @property
    def num_left(self) -> int:
        """Sequences that have not ended."""
        return sum(not output.has_ended for output in self.outputs)

    @property
    def has_ended_well(self) -> bool:
        return all(output.finish_reason is not None for output in self.outputs)

    def next_batch(self, timeout_s: float = float("inf")) -> Batch | None:
        """What came, waiting at most ``timeout_s`` for it; None if nothing did.

        Raises ``ClientGoneError`` when the caller left, ``DeadlineError`` when the engine missed
        the deadline by more than the grace, ``InternalError`` when the worker is given up.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = until_s - time.monotonic()
            pieces = self._wait(min(CLIENT_CHECK_S, left_s))
            if pieces:
                return self._batch(pieces)
            self._require_client()
            self._require_worker()
            self._require_in_time()
            if left_s <= 0:
                return None

    def require_batch(self) -> Batch:
        """What came, however long it takes. Raises the error that ended a sequence, if one did."""
        batch = self.next_batch()
        assert batch is not None, "without a timeout something comes"
        if batch.error is not None:
            raise batch.error
        return batch

    def read_all(self) -> list[JobOutput]:
        """All completions, whole. Raises the error that ended one, if one did."""
        while not self.require_batch().is_last:
            pass
        return self.outputs

    def close(self) -> None:
        """Stop the jobs that have not ended, and give the place back."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self.has_ended_well and self.error is None:
            self.error = ClientGoneError()
        for job in self.jobs:
            if not job.has_ended:
                job.cancel(self.error or ClientGoneError())
        wait_s = 0.0 if self._admitted.is_lost else RELEASE_WAIT_S
        if self._has_ended_by(time.monotonic() + wait_s):
            self._admitted.release()
        else:
            threading.Thread(target=self._release_at_end, name="release-place", daemon=True).start()

    def fail(self, error: BaseException | None) -> None:
        """Close because of ``error``; the log line tells the first one."""
        if isinstance(error, RequestError) and self.error is None:
            self.error = error
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self.fail(error)

    def timings(self) -> Timings:
        """First start, first token and last end over all jobs."""
        timings = [job.timings for job in self.jobs]
        ends = [one.finished_s for one in timings if one.finished_s is not None]
        return Timings(
            created_s=min((one.created_s for one in timings), default=time.monotonic()),
            started_s=min((one.started_s for one in timings if one.started_s is not None), default=None),
            first_token_s=min((one.first_token_s for one in timings if one.first_token_s is not None), default=None),
            finished_s=max(ends) if ends and len(ends) == len(timings) else None,
        )

    def usage(self) -> Usage:
        """Token counts as OpenAI's API names them."""
        counts = self.token_counts()
        usage: Usage = {
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
            "total_tokens": counts.prompt_tokens + counts.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": counts.cached_tokens},
        }
        if counts.reasoning_tokens is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": counts.reasoning_tokens}
        return usage

    def token_counts(self) -> TokenCounts:
        """Sums over the jobs: prompts once, completions all, discarded ones too."""
        prompts = [job.usage for job in self.jobs[:: self._num_per_prompt]]
        thoughts = [num for job in self.jobs if (num := job.usage.reasoning_tokens) is not None]
        return TokenCounts(
            prompt_tokens=sum(usage.prompt_tokens for usage in prompts),
            completion_tokens=sum(job.usage.completion_tokens for job in self.jobs),
            cached_tokens=sum(usage.cached_tokens for usage in prompts),
            reasoning_tokens=sum(thoughts) if thoughts else None,
        )

    def headers(self) -> dict[str, str]:
        """Timing headers, as far as the points in time are reached."""
        timings = self.timings()
        points = timings.as_ms()
        headers = {"X-Queue-Ms": str(points["queue_ms"]), "X-Ttft-Ms": str(points["ttft_ms"])}
        return headers if timings.finished_s is None else headers | {"X-Total-Ms": str(points["total_ms"])}

    def _wait(self, timeout_s: float) -> list[Piece]:
        if len(self.outputs) == 1:
            events = self.outputs[0].job.next_events(timeout_s)
            return [self.outputs[0].read(0, events)] if events else []
        self._news.wait(max(timeout_s, 0.0))
        self._news.clear()
        pieces = []
        for index, output in enumerate(self.outputs):
            events = [] if output.has_ended else output.job.next_events(0)
            if events:
                pieces.append(output.read(index, events))
        return pieces

    def _batch(self, pieces: list[Piece]) -> Batch:
        for output in self.outputs:
            if output.error is not None:
                self.fail(output.error)
                return Batch(pieces, is_last=False, error=output.error)
        if self.has_ended_well:
            # Already here, so that a caller who reads slowly does not hold a place.
            self._admitted.release()
            return Batch(pieces, is_last=True)
        self._admitted.keep(max(self.num_left, 1))
        self._require_client()
        return Batch(pieces, is_last=False)

    def _require_client(self) -> None:
        if self._admitted.caller.is_gone():
            raise ClientGoneError()

    def _require_worker(self) -> None:
        """An inference thread that hangs ends no job; the process leaves a moment after it is given up."""
        if self._admitted.is_lost:
            raise InternalError()

    def _require_in_time(self) -> None:
        has_started = any(job.timings.started_s is not None for job in self.jobs)
        queue_s = float("inf") if has_started else min(job.queue_deadline_s for job in self.jobs)
        error = overdue(time.monotonic() - DEADLINE_GRACE_S, min(job.deadline_s for job in self.jobs), queue_s)
        if error is not None:
            raise error

    def _has_ended_by(self, until_s: float) -> bool:
        for job in self.jobs:
            while not job.has_ended and time.monotonic() < until_s:
                job.next_events(min(CLIENT_CHECK_S, until_s - time.monotonic()))
        return all(job.has_ended for job in self.jobs)

    def _release_at_end(self) -> None:
        self._has_ended_by(float("inf"))
        self._admitted.release()
