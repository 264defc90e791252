"""What text-generation-inference's routes answer, for the OpenAPI description. Types only."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

TgiFinishReason = Literal["length", "eos_token", "stop_sequence"]


class TgiPromptToken(TypedDict):
    """A token of the prompt; the first has nothing before it."""

    id: int
    text: str
    logprob: float | None


class TgiToken(TypedDict):
    """A token that was generated; ``text`` is what it adds, empty where a character is not whole yet."""

    id: int
    text: str
    logprob: float
    special: bool


class TgiDetails(TypedDict):
    """How a text came about."""

    finish_reason: TgiFinishReason
    generated_tokens: int
    seed: int | None
    prefill: list[TgiPromptToken]
    tokens: list[TgiToken]
    top_tokens: NotRequired[list[list[TgiToken]]]


class TgiText(TypedDict):
    """A continued text."""

    generated_text: str
    details: NotRequired[TgiDetails]


class TgiStreamDetails(TypedDict):
    """The same at the end of a stream."""

    finish_reason: TgiFinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


class TgiEvent(TypedDict):
    """One token; the last one brings the whole text."""

    index: int
    token: TgiToken
    generated_text: str | None
    details: TgiStreamDetails | None
    top_tokens: NotRequired[list[TgiToken]]


class TgiInfo(TypedDict):
    """A server's model and bounds."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_device_type: str
    model_pipeline_tag: Literal["text-generation"]
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str
    version: str
    sha: str | None
    docker_label: str | None
