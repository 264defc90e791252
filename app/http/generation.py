"""One generation request: from the place on the board to the last event.

HTTP threads. A ``Generation`` holds a place and a job; closing it, at any time and any number of
times, stops the job and gives the place back once the engine has let go of the sequence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flask import request

from app.core.errors import QueueTimeoutError, RequestError, RequestTimeoutError
from app.core.jobs import Event, Failed, Finished, Job, TextDelta
from app.http.backend import TextModel, inference_of, loaded_model
from app.http.connection import is_client_gone
from app.http.errors import ClientGoneError
from app.http.limits import TIMEOUT_HEADER, Deadlines, num_new_tokens
from app.http.request_log import record
from app.http.schemas.common import GenerationOptions
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.serve.admission import Place

CLIENT_CHECK_S = 0.25
# The engine ends overdue jobs itself; only one that hangs is this late.
DEADLINE_GRACE_S = 2.0
# How long the HTTP thread itself waits for the engine to let go of a cancelled sequence.
RELEASE_WAIT_S = 2.0

Encode = Callable[[TextModel], list[int]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that were there together: their text, and the last one if it ended the sequence."""

    text: str
    end: Finished | Failed | None


class Generation:
    """A job that runs, and the place it takes."""

    def __init__(self, job: Job, place: Place, model: str, environ: dict[str, Any]):
        self.job = job
        self.model = model
        self.end: Finished | None = None
        self.error: RequestError | None = None
        self._place = place
        self._environ = environ
        self._pieces: list[str] = []
        self._is_closed = False

    @property
    def text(self) -> str:
        """The completion so far."""
        return "".join(self._pieces)

    def next_batch(self, timeout_s: float = float("inf")) -> Batch | None:
        """What came, waiting at most ``timeout_s`` for it; None if nothing did.

        Raises ``ClientGoneError`` when the caller left, ``DeadlineError`` when the engine missed
        the deadline by more than the grace.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = until_s - time.monotonic()
            events = self.job.next_events(min(CLIENT_CHECK_S, left_s))
            if events:
                return self._read(events)
            self._require_client()
            self._require_in_time()
            if left_s <= 0:
                return None

    def require_batch(self) -> Batch:
        """What came, however long it takes. Raises the error that ended the sequence, if one did."""
        batch = self.next_batch()
        assert batch is not None, "without a timeout something comes"
        if isinstance(batch.end, Failed):
            raise batch.end.error
        return batch

    def read_all(self) -> str:
        """The whole completion. Raises the error that ended it, if one did."""
        while self.require_batch().end is None:
            pass
        return self.text

    def close(self) -> None:
        """Stop the job if it has not ended, and give the place back."""
        if self._is_closed:
            return
        self._is_closed = True
        if self.end is None and self.error is None:
            self.error = ClientGoneError()
        if not self.job.has_ended:
            self.job.cancel(self.error or ClientGoneError())
        if self._has_ended_by(time.monotonic() + RELEASE_WAIT_S):
            self._place.release()
        else:
            threading.Thread(target=self._release_at_end, name="release-place", daemon=True).start()

    def fail(self, error: BaseException | None) -> None:
        """Close because of ``error``; the log line tells the first one."""
        if isinstance(error, RequestError) and self.error is None:
            self.error = error
        self.close()

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self.fail(error)

    def usage(self) -> dict[str, Any]:
        """Token counts as OpenAI's API names them."""
        usage = self.job.usage
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        }

    def headers(self) -> dict[str, str]:
        """Timing headers, as far as the points in time are reached."""
        timings, points = self.job.timings, self.job.timings.as_ms()
        headers = {"X-Queue-Ms": str(points["queue_ms"]), "X-Ttft-Ms": str(points["ttft_ms"])}
        return headers if timings.finished_s is None else headers | {"X-Total-Ms": str(points["total_ms"])}

    def log_fields(self) -> dict[str, Any]:
        """What the request's log line says of it; None for points that were never reached."""
        timings, points = self.job.timings, self.job.timings.as_ms()
        return {
            "queue_ms": points["queue_ms"] if timings.started_s is not None else None,
            "ttft_ms": points["ttft_ms"] if timings.first_token_s is not None else None,
            "prompt_tokens": self.job.usage.prompt_tokens,
            "completion_tokens": self.job.usage.completion_tokens,
            "finish_reason": self.end.finish_reason if self.end else None,
        }

    def _read(self, events: list[Event]) -> Batch:
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        self._pieces.append(text)
        last = events[-1]
        if not isinstance(last, Finished | Failed):
            self._require_client()
            return Batch(text, None)
        if isinstance(last, Finished):
            self.end = last
        else:
            self.error = last.error
        # Already here, so that a caller who reads slowly does not hold a place.
        self._place.release()
        return Batch(text, last)

    def _require_client(self) -> None:
        if is_client_gone(self._environ):
            raise ClientGoneError()

    def _require_in_time(self) -> None:
        now_s = time.monotonic() - DEADLINE_GRACE_S
        if now_s > self.job.deadline_s:
            raise RequestTimeoutError("the request took longer than its time limit")
        if self.job.timings.started_s is None and now_s > self.job.queue_deadline_s:
            raise QueueTimeoutError("the request waited in the queue longer than its time limit")

    def _has_ended_by(self, until_s: float) -> bool:
        while not self.job.has_ended and time.monotonic() < until_s:
            self.job.next_events(min(CLIENT_CHECK_S, until_s - time.monotonic()))
        return self.job.has_ended

    def _release_at_end(self) -> None:
        self._has_ended_by(float("inf"))
        self._place.release()


class Generator:
    """Starts generations on one worker."""

    def __init__(self, context: WorkerContext):
        self._context = context

    def open(self, options: GenerationOptions, encode: Encode) -> Generation:
        """Take a place, tokenize, submit. Raises a ``RequestError``; the place is then free again."""
        deadlines = Deadlines.from_now(self._context.settings, request.headers.get(TIMEOUT_HEADER))
        place = self._context.admission.enter(deadlines.own_s)
        try:
            model = loaded_model(self._context)
            job = self._make_job(options, encode(model), model, deadlines, place)
            inference_of(self._context).submit(job)
        except BaseException:
            place.release()
            raise
        generation = Generation(job, place, model.name, request.environ)
        record().generation = generation
        return generation

    def _make_job(
        self, options: GenerationOptions, prompt_ids: list[int], model: TextModel, deadlines: Deadlines, place: Place
    ) -> Job:
        room = num_new_tokens(options, len(prompt_ids), model.context_tokens, self._context.settings)
        return Job(
            record().request_id,
            prompt_ids,
            options.sampling(model.defaults, room),
            queue_deadline_s=deadlines.queue_s,
            deadline_s=deadlines.total_s,
            on_started=place.start,
        )
