"""A job is one piece of work for the model, and the channel its results come back on.

Made by an HTTP thread, worked on by the inference thread. Knows neither Flask nor torch. The
HTTP thread reads ``Event``s; the inference thread writes them and asks ``stop_cause``.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

from app.core.errors import RequestError, RequestTimeoutError
from app.core.patience import overdue
from app.core.work.adapters import Adapter
from app.core.work.job_events import Event, Failed, Finished, FinishReason, PromptScored, TextDelta
from app.core.work.sampling_params import SamplingParams


@dataclass(slots=True)
class TokenCounts:
    """Token counts, written by the inference thread; ``reasoning_tokens`` None where reasoning is not told apart."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int | None = None


@dataclass(slots=True)
class Timings:
    """Points on ``time.monotonic()``, in seconds; None until reached."""

    created_s: float = field(default_factory=time.monotonic)
    started_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None

    def as_ms(self) -> dict[str, float]:
        """``queue_ms``, ``ttft_ms`` and ``total_ms`` since creation; what is not reached yet, as of now."""
        now = time.monotonic()
        points = {"queue_ms": self.started_s, "ttft_ms": self.first_token_s, "total_ms": self.finished_s}
        return {name: round(((at or now) - self.created_s) * 1000, 1) for name, at in points.items()}


class JobOptions(TypedDict, total=False):
    """Keyword arguments of every job; see ``BaseJob``."""

    queue_deadline_s: float
    deadline_s: float
    on_started: Callable[[], None] | None
    on_event: Callable[[], None] | None


class BaseJob:
    """Token ids, deadlines, and the events of whatever is to be done with them; ends exactly once.

    ``on_started`` runs once on the inference thread when the job leaves the queue; the place on
    the board moves from waiting to running with it. ``on_event`` runs there after each event, for
    a reader who waits for several jobs. Deadlines are ``time.monotonic()`` seconds. Only jobs of one
    ``owner`` share what was computed; those of one ``turn`` (a request's) take turns as one. ``adapter`` changes the
    model for this job alone.
    """

    def __init__(
        self,
        request_id: str,
        prompt_ids: list[int],
        *,
        queue_deadline_s: float = float("inf"),
        deadline_s: float = float("inf"),
        on_started: Callable[[], None] | None = None,
        on_event: Callable[[], None] | None = None,
    ):
        self.request_id = request_id
        self.prompt_ids = prompt_ids
        self.queue_deadline_s = queue_deadline_s
        self.deadline_s = deadline_s
        self.owner = b""
        self.adapter: Adapter | None = None
        self.turn: object = self
        self.usage = TokenCounts(prompt_tokens=len(prompt_ids))
        self.timings = Timings()
        self._on_started = on_started
        self._on_event = on_event
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancelled_by: RequestError | None = None
        self._ended = False

    # HTTP thread

    def cancel(self, error: RequestError) -> None:
        """Ask the inference thread to stop this job before its next step."""
        self._cancelled_by = error

    def next_events(self, timeout_s: float) -> list[Event]:
        """All events that are there, waiting at most ``timeout_s`` for the first; [] if none came."""
        try:
            events = [self._events.get(timeout=max(timeout_s, 0.0))]
        except queue.Empty:
            return []
        while True:
            try:
                events.append(self._events.get_nowait())
            except queue.Empty:
                return events

    # inference thread

    def stop_cause(self, now_s: float) -> RequestError | None:
        """Why this job must not go on, or None."""
        if self._cancelled_by is not None:
            return self._cancelled_by
        has_started = self.timings.started_s is not None
        return overdue(now_s, self.deadline_s, float("inf") if has_started else self.queue_deadline_s)

    @property
    def has_ended(self) -> bool:
        return self._ended

    def start(self) -> None:
        """The job leaves the queue."""
        self.timings.started_s = time.monotonic()
        if self._on_started is not None:
            self._on_started()

    def finish(self, reason: FinishReason, *, is_cut: bool = False, stop: str | None = None) -> None:
        self._end(Finished(reason, is_cut, stop))

    def fail(self, error: RequestError) -> None:
        self._end(Failed(error))

    def _end(self, event: Event) -> None:
        assert not self._ended, "a job ends exactly once"
        self._ended = True
        self.timings.finished_s = time.monotonic()
        self._put(event)

    def _put(self, event: Event) -> None:
        self._events.put(event)
        if self._on_event is not None:
            self._on_event()


class Job(BaseJob):
    """One sequence to generate: a prompt and how to choose its tokens.

    Where nobody reads along (``is_streamed`` false) the text may come as one event at the end.
    ``is_open``: no caller bounded the completion, so that its deadline ends it with what there is.
    """

    def __init__(
        self,
        request_id: str,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        is_streamed: bool = True,
        is_open: bool = False,
        **options: Unpack[JobOptions],
    ):
        super().__init__(request_id, prompt_ids, **options)
        self.params = params
        if params.answer is not None and params.answer.may_think:
            self.usage.reasoning_tokens = 0
        self.is_streamed = is_streamed
        self._is_open = is_open

    def is_ended_by(self, cause: RequestError) -> bool:
        """Whether ``cause`` ends the job with what it has, by length: its time is up, and the time was its bound."""
        is_over = isinstance(cause, RequestTimeoutError) and self._cancelled_by is None
        return self._is_open and is_over and self.usage.completion_tokens > 0

    def count_token(self) -> None:
        """One more token was generated."""
        if self.timings.first_token_s is None:
            self.timings.first_token_s = time.monotonic()
        self.usage.completion_tokens += 1

    def count_reasoning(self) -> int:
        """One more of them was reasoning; how many there are."""
        num_tokens = self.usage.reasoning_tokens = (self.usage.reasoning_tokens or 0) + 1
        return num_tokens

    def emit(self, event: TextDelta | PromptScored) -> None:
        """Hand something to the HTTP thread."""
        self._put(event)
