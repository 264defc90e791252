"""A job is one piece of work for the model, and the channel its results come back on.

Made by an HTTP thread, worked on by the inference thread. Knows neither Flask nor torch. The
HTTP thread reads ``Event``s; the inference thread writes them and asks ``stop_cause``.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypedDict, Unpack

from app.core.errors import ConstraintTooCostlyError, RequestError, RequestTimeoutError
from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.core.patience import overdue

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ReasoningSpan:
    """What reasoning at the start of an answer begins and ends with; ``is_open``: the prompt has begun it.

    ``answer`` stands between it and the answer itself; with one there may be several of it, one after another.
    """

    opens: tuple[str, ...]
    closes: tuple[str, ...]
    is_open: bool = False
    answer: str = ""


ConstraintKind = Literal["json_schema", "regex", "lark", "tool_calls", "grammars"]
# The field of a request that a constraint comes in.
CONSTRAINT_PARAMS: dict[ConstraintKind, str] = {
    "json_schema": "response_format",
    "regex": "regex",
    "lark": "grammar",
    "tool_calls": "tools",
    "grammars": "response_format",
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the completion must match: a JSON schema (as JSON text), a regular expression, a grammar in Lark's notation,
    tool calls (the fields of ``CallRules`` as JSON text), or llguidance's list of grammars.

    ``given_in``: the field it came in, where that holds constraints of all kinds. ``reasoning`` may stand before what
    it constrains.
    """

    kind: ConstraintKind
    source: str
    given_in: str | None = None
    reasoning: ReasoningSpan | None = None

    @property
    def param(self) -> str:
        """The field of the request that asks for it."""
        return self.given_in or CONSTRAINT_PARAMS[self.kind]


class Matcher(Protocol):
    """Follows one sequence through its grammar. Inference thread."""

    @property
    def failure(self) -> ConstraintTooCostlyError | None:
        """Why the grammar cannot be followed any more."""

    def accept(self, token: int) -> None:
        """``token`` was chosen."""

    def allowed(self, num_bytes: int) -> bytes | bytearray | None:
        """Which tokens may come next, a bit for each (little-endian), in so many bytes; None where it has failed."""


class Grammar(Protocol):
    """A constraint that was compiled (``app/models/grammars``)."""

    def matcher(self, end_ids: Iterable[int]) -> Matcher:
        """A matcher at the start of a completion that any of ``end_ids`` ends."""


@dataclass(frozen=True, slots=True)
class ReasoningLimit:
    """How many tokens of reasoning there may be, and those that close it then."""

    num_tokens: int
    closing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. Names, order and meaning as in transformers' ``GenerationConfig``.

    ``temperature`` 0 is greedy: ``top_k``, ``top_p``, ``min_p`` and ``typical_p`` then change
    nothing, while penalties, biases, bans and grammars still do, as in ``generate``. ``top_k``
    0, ``top_p`` 1, ``min_p`` 0 and ``typical_p`` 1 are off. ``presence_penalty`` and
    ``frequency_penalty`` count generated tokens (OpenAI). ``max_new_tokens`` 0 only scores the
    prompt. ``stop`` strings and the RE2 ``truncate_before_pattern``s are not part of the text that
    is returned; ``stop_token_ids`` end a sequence as the model's end token does. ``bad_words`` are
    sequences of token ids. ``text_before`` is the text in front of the completion, as far as patterns
    see it, where the prompt does not end with it (a hole's prefix). This long (``line_limit_s``) after
    its first token a completion ends, by length, at the next line break (llama.cpp's
    ``t_max_predict_ms``). ``num_logprobs`` asks for the
    log-probability of each generated token and of that many best ones; ``num_prompt_logprobs`` the
    same of the prompt's tokens. ``shown_tokens`` are special tokens that are part of the text, by their names; a
    stop string ends the sequence where it stands in the content of an ``answer`` that is told apart. Reasoning that is
    longer than ``reasoning_limit`` is closed.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_new_tokens: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    truncate_before_pattern: tuple[str, ...] = ()
    text_before: str | None = None
    ignore_eos: bool = False
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    line_limit_s: float | None = None
    shown_tokens: frozenset[int] = frozenset()
    answer: AnswerForm | None = None
    reasoning_limit: ReasoningLimit | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What holds where a request is silent (DESIGN 1.4): the model's own values, or those of an API."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log-probability before any sampling parameter, and the best tokens in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that will not change any more; never half a character, never part of a stop string.

    ``logprobs`` holds the tokens generated since the last event, where they were asked for: text
    may lag behind them while a character or a stop string is unfinished.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptScored:
    """Log-probabilities of the prompt's tokens from the second on; the first has nothing before it."""

    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a sequence that ended well. ``is_cut``: by a stop string or pattern, not by an end token;
    ``stop``: by this string."""

    finish_reason: FinishReason
    is_cut: bool = field(default=False, compare=False)
    stop: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a sequence that did not."""

    error: RequestError


Event = TextDelta | PromptScored | Finished | Failed


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
    ``owner`` share what was computed; those of one ``turn`` (a request's) take turns as one.
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
