"""The body of ``POST /v1/responses``, and what it says in chat's words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.http.dialects.responses.input_items import (
    AnswerFormat,
    FlatSchemaFormat,
    FunctionByName,
    InputItem,
    NamedFunction,
    OwnFunction,
)
from app.http.dialects.responses.item_messages import chat_messages
from app.http.schemas.chat_body import MAX_TOP_LOGPROBS
from app.http.schemas.openai_fields import NO_EFFECT, Notes, NoteText
from app.http.schemas.sampling_fields import MAX_SALT_LENGTH
from app.http.schemas.strict import StrictBody
from app.http.schemas.tool_fields import MAX_TOOLS, TemplateArguments

# Chat's names of fields that errors may name, and how they are called here.
NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text",
    "reasoning_effort": "reasoning",
    "logprobs": "top_logprobs",
}
LOGPROBS = "message.output_text.logprobs"


def _stored(name: str) -> BeforeValidator:
    def refuse(_: object) -> None:
        text = f"{name}: nothing is stored here; send the whole conversation in input"
        raise UnsupportedParameterError(text, param=name)

    return BeforeValidator(refuse)


class TextConfig(StrictBody):
    """What the answer's text is to be like."""

    format: AnswerFormat | None = Field(None, description="JSON that the answer must be.")
    verbosity: NoteText | None = Field(None, description=NO_EFFECT)


class ReasoningConfig(StrictBody):
    """How the model thinks."""

    effort: NoteText | None = Field(
        None,
        description="For templates that know it; none turns the reasoning off where the template can. Else a hint.",
    )
    summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description=f"{NO_EFFECT} Reasoning is told whole."
    )
    generate_summary: Literal["auto", "concise", "detailed"] | None = Field(
        None, description=f"{NO_EFFECT} Reasoning is told whole."
    )


class ObfuscationOptions(StrictBody):
    """What a stream tells beside its text."""

    include_obfuscation: Literal[False] | None = Field(None, description="Events are not padded.")


class ResponsesBody(StrictBody):
    """A conversation to be answered, as OpenAI's Responses API has it."""

    input: (
        Annotated[str, StringConstraints(min_length=1)]
        | Annotated[list[InputItem], Field(min_length=1, fail_fast=True)]
    ) = Field(description="What the user says, or the items of the conversation.")
    instructions: str | None = Field(None, description="A system message in front of it.")
    max_output_tokens: int | None = Field(
        None, ge=1, description="Most tokens to generate, reasoning included. Default: what fits the context."
    )
    tools: Annotated[list[OwnFunction], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        None, description="Functions that the model may call, where its chat template renders them."
    )
    tool_choice: Literal["auto", "none", "required"] | FunctionByName | None = Field(
        None, description="none: the tools are not shown. required, or a function by name: it calls, by a grammar."
    )
    parallel_tool_calls: bool | None = Field(
        None, description="false: at most one call. Default: the model decides how many it makes."
    )
    max_tool_calls: int | None = Field(None, ge=1, description=f"{NO_EFFECT} Counts hosted tools, which there are not.")
    text: TextConfig | None = Field(None, description="A format, and hints.")
    reasoning: ReasoningConfig | None = Field(None, description="Effort, and hints.")
    temperature: float | None = Field(None, ge=0, le=100, description="0 is greedy. Default: 1.")
    top_p: float | None = Field(None, ge=0, le=1, description="Nucleus sampling; 1 is off.")
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="Tell each token's log-probability, and those of that many best ones.",
    )
    include: (
        Annotated[list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]], Field(max_length=8)]
        | None
    ) = Field(None, description="Log-probabilities; encrypted reasoning is a hint: none is encrypted.")
    stream: bool | None = Field(None, description="Answer with server-sent events. Default: false.")
    stream_options: ObfuscationOptions | None = Field(None, description="With stream only.")
    store: Literal[False] | None = Field(None, description="Nothing is stored.")
    background: Literal[False] | None = Field(None, description="The answer is waited for.")
    truncation: Literal["disabled"] | None = Field(None, description="What does not fit the context is refused.")
    previous_response_id: Annotated[None, _stored("previous_response_id")] = Field(
        None, description="Nothing is stored."
    )
    conversation: Annotated[None, _stored("conversation")] = Field(None, description="Nothing is stored.")
    prompt: Annotated[None, _stored("prompt")] = Field(None, description="Nothing is stored.")
    metadata: Notes | None = Field(None, description="Comes back.")
    user: NoteText | None = Field(None, description=NO_EFFECT)
    safety_identifier: NoteText | None = Field(None, description=NO_EFFECT)
    prompt_cache_key: NoteText | None = Field(None, description=NO_EFFECT)
    prompt_cache_retention: NoteText | None = Field(None, description=NO_EFFECT)
    service_tier: NoteText | None = Field(None, description=f"{NO_EFFECT} There is one tier.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="Same seed, same request: same answer.")
    cache_salt: Annotated[str, StringConstraints(max_length=MAX_SALT_LENGTH)] | None = Field(
        None, description="Computed prompt prefixes are shared only among requests of the same API key and salt."
    )
    chat_template_kwargs: TemplateArguments | None = Field(
        None, description="Arguments of the chat template, of those that it knows."
    )
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")

    @model_validator(mode="after")
    def _stream_options_with_stream(self) -> ResponsesBody:
        if self.stream_options is not None and not self.stream:
            raise InvalidParameterError("stream_options: only with stream", param="stream_options")
        return self

    @property
    def has_logprobs(self) -> bool:
        """Whether the tokens of the text are to be scored."""
        return self.top_logprobs is not None or LOGPROBS in (self.include or [])

    def as_chat(self) -> dict[str, Any]:
        """The same in the fields of chat's body."""
        alike = ("parallel_tool_calls", "temperature", "top_p", "stream", "seed", "cache_salt", "model")
        return {
            **{name: getattr(self, name) for name in alike},
            "messages": chat_messages(self.instructions, self.input),
            "max_completion_tokens": self.max_output_tokens,
            "tools": None if self.tools is None else [_chat_tool(tool) for tool in self.tools],
            "tool_choice": _chat_choice(self.tool_choice),
            "response_format": _chat_format(self.text),
            "reasoning_effort": self.reasoning and self.reasoning.effort,
            "logprobs": self.has_logprobs or None,
            "top_logprobs": self.top_logprobs,
            "chat_template_kwargs": self.chat_template_kwargs and self.chat_template_kwargs.model_dump(),
        }


def _chat_tool(tool: OwnFunction) -> dict[str, Any]:
    fields = {name: getattr(tool, name) for name in ("name", "description", "parameters", "strict")}
    return {"type": "function", "function": fields}


def _chat_choice(choice: str | FunctionByName | None) -> str | dict[str, Any] | None:
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _chat_format(text: TextConfig | None) -> dict[str, Any] | None:
    if text is None or text.format is None:
        return None
    if isinstance(text.format, FlatSchemaFormat):
        return {"type": "json_schema", "json_schema": {"name": text.format.name, "schema": text.format.schema_}}
    return {"type": text.format.type}
