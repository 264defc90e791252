"""A scripted inference thread, so that the HTTP room can be driven without a model.

It is a real thread that works through real jobs one after another, as the engine does with one
slot: it starts them, writes their events, and looks at ``stop_cause`` before each token.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.core.errors import InternalError, InvalidParameterError, RequestError, UnsupportedParameterError
from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.forms.object_forms.hermes import HERMES
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.reasoning import ReasoningForm
from app.core.settings import Settings
from app.core.states import WorkerState
from app.core.work.job_events import FinishReason, PromptScored, TextDelta, TokenLogprob
from app.core.work.jobs import Job
from app.core.work.sampling_params import CONSTRAINT_PARAMS, Constraint, Grammar, Matcher
from app.serve.board.admission import Admission
from app.serve.board.slot_board import SlotBoard
from app.serve.context import WorkerContext
from tests.serving import OneHandle

POLL_S = 0.005


@dataclass(frozen=True)
class Defaults:
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class Characters:
    """One token per character; 0 is the end token, 1 to 4 are the bytes of an emoji."""

    drops_space = False

    def is_special(self, token: int) -> bool:
        return token == 0

    def token_bytes(self, token: int) -> bytes:
        return {0: b"<end>", 1: b"\xf0", 2: b"\x9f", 3: b"\x98", 4: b"\x80"}.get(token) or chr(token).encode()

    def text_bytes(self, token: int) -> bytes:
        return b"" if self.is_special(token) else self.token_bytes(token)

    def text(self, tokens: list[int]) -> str:
        return b"".join(map(self.text_bytes, tokens)).decode("utf-8", "replace")


@dataclass(frozen=True)
class Compiled:
    """A grammar that only knows what it was made of; the scripted inference follows none."""

    constraint: Constraint

    def matcher(self, end_ids: Iterable[int]) -> Matcher:
        raise NotImplementedError


class Constraints:
    """Follows everything but what holds ``impossible``."""

    def compiled(self, constraint: Constraint, scope: str, patience: Callable[[], None]) -> Grammar:
        param = CONSTRAINT_PARAMS[constraint.kind]
        if "impossible" in constraint.source:
            raise InvalidParameterError("it cannot be followed", param=param)
        return Compiled(constraint)


@dataclass(frozen=True)
class InfillPrompt:
    ids: list[int]
    stop_ids: frozenset[int]


@dataclass
class ScriptedForms:
    """Any form of answers; no token is special."""

    calls: CallForm = HERMES
    notation: str | None = "hermes"
    reasoning: ReasoningForm | None = None
    is_thinking: bool = False

    def of_request(self, tools: list[Any] | None, prompt_ids: list[int], continued: str | None = None) -> AnswerForm:
        return AnswerForm(self.calls if tools else None, self.reasoning, KnownTools(tools), self.is_thinking)

    def reasoning_span(self, prompt_ids: list[int], continued: str | None = None) -> None:
        return None

    def closing(self, *, has_tools: bool) -> str:
        return self.reasoning.closes[0] if self.reasoning is not None else ""

    def shown_tokens(self, *, has_tools: bool) -> frozenset[int]:
        return frozenset()


@dataclass(frozen=True)
class ScriptedCheckpoint:
    """What a model's files tell."""

    format: str = "safetensors"


@dataclass
class ScriptedModel:
    """One token per character; ``encoded`` remembers what was asked."""

    name: str = "scripted"
    created_s: int = 1_700_000_000
    task: str = "generate"
    context_tokens: int = 64
    has_chat_template: bool = True
    defaults: Defaults = field(default_factory=Defaults)
    encoded: list[object] = field(default_factory=list)
    vocab_size: int = 0x110000
    checkpoint: ScriptedCheckpoint = field(default_factory=ScriptedCheckpoint)
    eos_ids: frozenset[int] = frozenset({0})
    vocabulary: Characters = field(default_factory=Characters)
    constraints: Constraints = field(default_factory=Constraints)
    dtype: str = "float32"
    format: str = "safetensors"
    device_type: str = "cpu"
    has_tool_template: bool = True
    has_infill: bool = True
    tools: list[object] = field(default_factory=list)
    arguments: list[dict[str, Any]] = field(default_factory=list)
    template_names: tuple[str, ...] = ("enable_thinking", "reasoning_effort")
    forms: ScriptedForms = field(default_factory=lambda: ScriptedForms())

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if add_special_tokens:
            self.encoded.append(text)
        return [ord(character) for character in text]

    def encode_infill(
        self, parts: Sequence[str], filled: Sequence[str], files: Sequence[tuple[str, str]] = (), start: str = ""
    ) -> InfillPrompt:
        return InfillPrompt([ord(character) for character in "|".join(parts)], frozenset({9}))

    def takes_argument(self, name: str) -> bool:
        return name in self.template_names

    def encode_chat(
        self, messages: list[dict[str, Any]], tools: list[Any] | None = None, **arguments: Any
    ) -> list[int]:
        self.tools.append(tools)
        self.arguments.append(arguments)
        if not self.has_chat_template:
            raise UnsupportedParameterError("the model has no chat template", param="messages")
        self.encoded.append(messages)
        return [ord(character) for message in messages for character in message["content"] or ""]


class Gate(threading.Event):
    """A step of a script that waits until the test opens it, or the job must stop."""


Step = str | Exception | Gate | float
Script = Sequence[Step]


class ScriptedInference:
    """Works jobs off by script: text is a token, a number a pause in seconds, an error ends the job."""

    def __init__(self, model: ScriptedModel | None):
        self.model = model
        self.script: Script = ["Hello", ",\n", "world"]
        self.scripts: dict[int, Script] = {}
        self.kv_memory = None
        self.before_start: Gate | None = None
        self.finish_reason: FinishReason = "stop"
        self.stopped_by: str | None = None
        self.refuse_with: RequestError | None = None
        self.ignores_cancel = False
        self.jobs: list[Job] = []
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        if self.refuse_with is not None:
            raise self.refuse_with
        self.jobs.append(job)
        self._inbox.put(job)

    def stop(self) -> None:
        self.ignores_cancel = False
        for job in self.jobs:
            job.cancel(RequestError("the test is over"))
        self._inbox.put(None)
        self._thread.join(5)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._inbox.get()) is not None:
            try:
                self._work(job, list(self.scripts.get(self.jobs.index(job), self.script)))
            except BaseException:
                job.fail(InternalError())
                raise

    def _work(self, job: Job, script: list[Step]) -> None:
        if not self._may_go_on(job, self.before_start):
            return None
        job.start()
        if job.params.num_prompt_logprobs is not None:
            job.emit(PromptScored(tuple(scored(token) for token in job.prompt_ids[1:])))
        for step in script:
            if isinstance(step, RequestError):
                return job.fail(step)
            if not self._may_go_on(job, step if isinstance(step, Gate) else None):
                return None
            if isinstance(step, float):
                time.sleep(step)
            elif isinstance(step, str):
                job.count_token()
                job.emit(TextDelta(step, () if job.params.num_logprobs is None else tuple(map(scored, map(ord, step)))))
        return job.finish(self.finish_reason, is_cut=self.stopped_by is not None, stop=self.stopped_by)

    def _may_go_on(self, job: Job, gate: Gate | None) -> bool:
        while True:
            cause = None if self.ignores_cancel else job.stop_cause(time.monotonic())
            if cause is not None:
                if job.is_ended_by(cause):
                    job.finish("length")
                else:
                    job.fail(cause)
                return False
            if gate is None or gate.wait(POLL_S):
                return True


def scored(token: int) -> TokenLogprob:
    """A made-up score: longer code points are less likely."""
    return TokenLogprob(token, -token / 100, ((token, -token / 100), (token + 1, -token / 50)))


class World:
    """One worker without processes: context, double, board; and a way to change its settings."""

    def __init__(self, state: WorkerState = "ready", model: ScriptedModel | None = None, **settings: object):
        self.model = model or ScriptedModel()
        self.settings = Settings.model_validate({"model": "/models/scripted", **settings})
        self.board = SlotBoard([("GPU-a",)])
        slot = self.board.lease(4321)
        assert slot is not None
        self.board.set_state(slot, state, 0.5 if state == "loading" else 1.0)
        self.inference = ScriptedInference(self.model if state != "loading" else None)
        self.inference.handles = (OneHandle(self.inference, self.settings),)
        admission = Admission(self.settings, self.board, slot)
        self.context = WorkerContext(self.settings, slot, self.board, admission, self.inference)  # type: ignore[arg-type]

    def num_places(self) -> int:
        row = self.board.rows()[0]
        return row.num_running + row.num_waiting

    def use_defaults(self, **defaults: float) -> None:
        self.model.defaults = replace(self.model.defaults, **defaults)
