"""The inference thread as the HTTP threads see it, so that this room imports no torch."""

from __future__ import annotations

from typing import Protocol, cast

from app.core.errors import LoadingError
from app.core.jobs import Job
from app.serve.context import WorkerContext

Message = dict[str, str]


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


class TextModel(Protocol):
    """A loaded language model; both ``encode`` methods may be called by any thread."""

    name: str
    created_s: int
    context_tokens: int

    @property
    def defaults(self) -> SamplingDefaults: ...
    @property
    def has_chat_template(self) -> bool: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_chat(self, messages: list[Message]) -> list[int]: ...


class Inference(Protocol):
    """Where jobs go; ``model`` is None while it loads."""

    @property
    def model(self) -> TextModel | None: ...
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
