"""The inference thread as the HTTP threads see it, so that this room imports no torch."""

from __future__ import annotations

from typing import Any, Protocol, cast

from app.core.errors import LoadingError
from app.core.jobs import Constraint, Job
from app.serve.context import WorkerContext

Message = dict[str, Any]


class SamplingDefaults(Protocol):
    """The model's ``generation_config.json``, greedy where it is silent."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def repetition_penalty(self) -> float: ...


class Vocabulary(Protocol):
    """Tokens one by one (``app/models/vocabulary.py``)."""

    def is_special(self, token: int) -> bool: ...
    def token_bytes(self, token: int) -> bytes: ...
    def text_bytes(self, token: int) -> bytes: ...
    def text(self, tokens: list[int]) -> str: ...


class Constraints(Protocol):
    """Structured output (``app/models/constraints.py``)."""

    def check(self, constraint: Constraint) -> None: ...


class KvMemory(Protocol):
    """Memory of the KV cache."""

    @property
    def bytes_per_token(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...


class TextModel(Protocol):
    """A loaded language model; both ``encode`` methods may be called by any thread."""

    name: str
    created_s: int
    context_tokens: int
    vocab_size: int
    eos_ids: frozenset[int]

    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def constraints(self) -> Constraints: ...
    @property
    def dtype(self) -> str: ...
    @property
    def has_tool_template(self) -> bool: ...
    @property
    def defaults(self) -> SamplingDefaults: ...
    @property
    def has_chat_template(self) -> bool: ...
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...
    def encode_chat(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> list[int]: ...


class Inference(Protocol):
    """Where jobs go; ``model`` is None while it loads."""

    @property
    def model(self) -> TextModel | None: ...
    @property
    def kv_memory(self) -> KvMemory | None: ...
    def submit(self, job: Job) -> None: ...


def inference_of(context: WorkerContext) -> Inference:
    """The context's inference handle with the methods that HTTP threads use."""
    return cast(Inference, context.inference)


def loaded_model(context: WorkerContext) -> TextModel:
    """The worker's model. Raises ``LoadingError`` while there is none."""
    model = inference_of(context).model
    if model is None:
        raise LoadingError("the model is still loading", retry_after_s=5)
    return model
