"""What ``/v1/responses`` answers, in OpenAI's form; see ``native_types``. Types only."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from app.http.answers.openai_types import ScoredMessageToken

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]


class OutputTextPart(TypedDict):
    """Text of the answer; `logprobs` where they were asked for."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[ScoredMessageToken]


class ReasoningTextPart(TypedDict):
    """Text of the reasoning."""

    type: Literal["reasoning_text"]
    text: str


class OutputMessage(TypedDict):
    """What the model says."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: ItemStatus
    content: list[OutputTextPart]


class FunctionCall(TypedDict):
    """One tool call; `arguments` is JSON as text."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


class ReasoningItem(TypedDict):
    """What the model thinks, whole: there is no summary."""

    id: str
    type: Literal["reasoning"]
    status: ItemStatus
    summary: list[dict[str, Any]]
    content: list[ReasoningTextPart]


OutputItem = OutputMessage | FunctionCall | ReasoningItem


class ShownFunction(TypedDict):
    """A function of the request."""

    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool


class ShownChoice(TypedDict):
    """A function by name."""

    type: Literal["function"]
    name: str


class ShownText(TypedDict):
    """The format of the request, as it was sent."""

    format: dict[str, Any]


class ShownReasoning(TypedDict):
    """How the model was to think."""

    effort: str | None
    summary: None


class ResponseSettings(TypedDict):
    """What the request asked for, with the defaults that hold."""

    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str | None]
    parallel_tool_calls: bool
    reasoning: ShownReasoning
    temperature: float
    text: ShownText
    tool_choice: Literal["auto", "none", "required"] | ShownChoice
    tools: list[ShownFunction]
    top_logprobs: int
    top_p: float
    background: Literal[False]
    previous_response_id: None
    store: Literal[False]
    truncation: Literal["disabled"]
    service_tier: Literal["default"]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None


class ReadTokens(TypedDict):
    """Tokens of the prompt whose KV entries were still there."""

    cached_tokens: int
    cache_write_tokens: int


class ReasoningTokens(TypedDict):
    """Tokens of the reasoning's text."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """Token counts."""

    input_tokens: int
    input_tokens_details: ReadTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseFailure(TypedDict):
    """Why a stream failed."""

    code: str
    message: str


class IncompleteDetails(TypedDict):
    """Why an answer is cut."""

    reason: Literal["max_output_tokens"]


class AnsweredResponse(ResponseSettings):
    """An answered conversation; while it is streamed, what there is of it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: ResponseStatus
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
