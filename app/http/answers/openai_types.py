"""What the routes under `/v1` answer, in OpenAI's form; see `native_types`. Types only."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from app.core.states import ModelState
from app.core.work.job_events import FinishReason
from app.http.answers.native_types import Usage

EndReason = Literal["stop", "length", "tool_calls"]


class Envelope(TypedDict):
    """What every generated answer has; `created` in seconds."""

    id: str
    created: int
    model: str
    system_fingerprint: None


class LegacyLogprobs(TypedDict):
    """Four lists of the same length; the first token of an echoed prompt has null."""

    text_offset: list[int]
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class TextChoice(TypedDict):
    """One completion."""

    text: str
    index: int
    logprobs: LegacyLogprobs | None
    finish_reason: FinishReason


class TextCompletion(Envelope):
    """Continued texts, prompt by prompt."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage


class CalledName(TypedDict):
    """What is called; `arguments` is JSON as text."""

    name: str
    arguments: str


class Call(TypedDict):
    """One tool call."""

    id: str
    type: Literal["function"]
    function: CalledName


class Message(TypedDict):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[Call]]


class MessageToken(TypedDict):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class ScoredMessageToken(MessageToken):
    """A token of the message, with the best ones in its place."""

    top_logprobs: list[MessageToken]


class MessageLogprobs(TypedDict):
    """The tokens of a message without special ones."""

    content: list[ScoredMessageToken]
    refusal: None


class MessageChoice(TypedDict):
    """One answer."""

    index: int
    message: Message
    logprobs: MessageLogprobs | None
    finish_reason: EndReason


class ChatCompletion(Envelope):
    """An answered conversation."""

    object: Literal["chat.completion"]
    choices: list[MessageChoice]
    usage: Usage


class FimMessage(TypedDict):
    """What fills the hole."""

    role: Literal["assistant"]
    content: str
    tool_calls: None
    prefix: Literal[False]


class FimChoice(TypedDict):
    """One way to fill it."""

    index: int
    message: FimMessage
    finish_reason: FinishReason


class FimCompletion(Envelope):
    """A filled hole, in Mistral's form."""

    object: Literal["chat.completion"]
    choices: list[FimChoice]
    usage: Usage


class Embedding(TypedDict):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class InputUsage(TypedDict):
    """Token counts of the inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    """One vector per input."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: InputUsage


class ModelEntry(TypedDict):
    """A served model; `created` is when it was loaded. An adapter has the model that it changes as its `parent`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    state: ModelState
    parent: NotRequired[str]


class ModelList(TypedDict):
    """The served models."""

    object: Literal["list"]
    data: list[ModelEntry]
