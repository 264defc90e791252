"""The bodies of ``POST /v1/messages`` and ``/v1/messages/count_tokens``, and what they say in chat's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from app.core.errors import UnsupportedParameterError
from app.http.dialects.messages.content_blocks import (
    AnyTool,
    CachedPart,
    NoTool,
    OneTool,
    OwnTool,
    TextBlocks,
    ToolChoice,
    Turn,
)
from app.http.dialects.messages.messages_error import ThreadUnsupportedError
from app.http.dialects.messages.turns import chat_messages
from app.http.schemas.chat_body import ChatCompletionsBody
from app.http.schemas.openai_fields import NO_EFFECT, NoteText
from app.http.schemas.response_format import BoundedObject
from app.http.schemas.sampling_fields import MAX_SALT_LENGTH
from app.http.schemas.strict import MAX_STOPS, StopString, StrictBody
from app.http.schemas.tool_fields import MAX_TOOLS, TemplateArguments

if TYPE_CHECKING:
    from app.models.text_model import TextModel

# Chat's names of fields that errors may name, and how they are called here.
NAMES = {
    "messages": "messages",
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "response_format": "output_config",
    "reasoning_effort": "output_config",
    "parallel_tool_calls": "tool_choice",
    "thinking_token_budget": "thinking",
    "continue_final_message": "messages",
}


def _refuse_thread(_: object) -> None:
    raise ThreadUnsupportedError


class Thinks(StrictBody):
    """The model thinks before it answers."""

    type: Literal["enabled"]
    budget_tokens: int = Field(ge=1, description="Most tokens to think with; past them the reasoning is closed.")
    display: Literal["summarized"] | None = Field(None, description="What is thought is told, whole.")


class ThinksAtWill(StrictBody):
    """As the chat template has it."""

    type: Literal["adaptive"]
    display: Literal["summarized"] | None = Field(None, description="What is thought is told, whole.")


class ThinksNot(StrictBody):
    """The reasoning is turned off where the chat template can."""

    type: Literal["disabled"]


class Metadata(StrictBody):
    """Of the request."""

    user_id: NoteText | None = Field(None, description=NO_EFFECT)


class SchemaFormat(StrictBody):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    schema_: BoundedObject = Field(alias="schema", description="The schema; one that cannot be followed is refused.")


class OutputConfig(StrictBody):
    """What the answer is to be like."""

    effort: NoteText | None = Field(None, description="For templates that know a reasoning effort; else a hint.")
    format: SchemaFormat | None = Field(None, description="JSON that the answer must be.")


class ThinkingChat(ChatCompletionsBody):
    """Chat's body, and whether the model is to think."""

    thinks: bool | None = None

    def template_arguments(self, model: TextModel) -> dict[str, Any]:
        """Raises ``UnsupportedParameterError`` where a model is to think that does not."""
        arguments = super().template_arguments(model)
        if self.thinks and model.forms.reasoning is None:
            raise UnsupportedParameterError(f"thinking: the model {model.name} does not reason", param="thinking")
        wanted = {"enable_thinking": self.thinks, "thinking": self.thinks}
        known = {name: value for name, value in wanted.items() if value is not None and model.takes_argument(name)}
        return known | arguments


class ConversationBody(CachedPart):
    """What both routes take: the conversation, and what the model is shown beside it."""

    messages: Annotated[list[Turn], Field(min_length=1, fail_fast=True)] = Field(
        description="The conversation; turns of one role that follow each other are one, and a last one of the"
        " assistant's is the start of the answer."
    )
    system: str | TextBlocks | None = Field(None, description="Instructions in front of it.")
    tools: Annotated[list[OwnTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = Field(
        None, description="Functions that the model may call, where its chat template renders them."
    )
    tool_choice: ToolChoice | None = Field(
        None, description="auto, any, tool by name, none. The calls of any and tool follow their schemas."
    )
    thinking: Annotated[Thinks | ThinksAtWill | ThinksNot, Field(discriminator="type")] | None = Field(
        None, description="Default: as the chat template has it."
    )
    output_config: OutputConfig | None = Field(None, description="Effort, and a schema.")
    chat_template_kwargs: TemplateArguments | None = Field(
        None, description="Arguments of the chat template, of those that it knows."
    )
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")

    def as_chat(self) -> dict[str, Any]:
        """The same in the fields of ``ThinkingChat``."""
        output, thinking = self.output_config, self.thinking
        return {
            "messages": chat_messages(self.system, self.messages),
            "tools": None if self.tools is None else [_chat_tool(tool) for tool in self.tools],
            "tool_choice": _chat_choice(self.tool_choice),
            "parallel_tool_calls": False if getattr(self.tool_choice, "disable_parallel_tool_use", None) else None,
            "response_format": _chat_format(output),
            "reasoning_effort": output and output.effort,
            "thinks": None if thinking is None or isinstance(thinking, ThinksAtWill) else isinstance(thinking, Thinks),
            "thinking_token_budget": thinking.budget_tokens if isinstance(thinking, Thinks) else None,
            "continue_final_message": self.messages[-1].role == "assistant" or None,
            "chat_template_kwargs": self.chat_template_kwargs and self.chat_template_kwargs.model_dump(),
            "model": self.model,
        }


class CountTokensBody(ConversationBody):
    """A conversation whose tokens are counted."""


class MessagesBody(ConversationBody):
    """A conversation to be answered, as Anthropic's API has it."""

    max_tokens: int = Field(ge=1, description="Most tokens to generate, reasoning included; lowered to what fits.")
    stop_sequences: Annotated[list[StopString], Field(max_length=MAX_STOPS, fail_fast=True)] | None = Field(
        None, description="Strings that end the answer; they are not part of it."
    )
    temperature: float | None = Field(None, ge=0, le=100, description="0 is greedy. Default: 1.")
    top_p: float | None = Field(None, ge=0, le=1, description="Nucleus sampling; 1 is off.")
    top_k: int | None = Field(None, ge=-1, le=1_000_000, description="Best tokens kept; 0 and -1 are off.")
    stream: bool | None = Field(None, description="Answer with server-sent events. Default: false.")
    metadata: Metadata | None = Field(None, description=NO_EFFECT)
    thread: Annotated[None, BeforeValidator(_refuse_thread)] = Field(None, description="Nothing is stored.")
    service_tier: Literal["auto", "standard_only"] | None = Field(None, description=f"{NO_EFFECT} There is one tier.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="Same seed, same request: same answer.")
    cache_salt: Annotated[str, StringConstraints(max_length=MAX_SALT_LENGTH)] | None = Field(
        None, description="Computed prompt prefixes are shared only among requests of the same API key and salt."
    )

    def as_chat(self) -> dict[str, Any]:
        alike = ("max_tokens", "temperature", "top_p", "top_k", "stream", "seed", "cache_salt")
        own = {name: getattr(self, name) for name in alike}
        return {**super().as_chat(), **own, "stop": self.stop_sequences}


def _chat_tool(tool: OwnTool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "strict": tool.strict}
    return {"type": "function", "function": {**function, "parameters": tool.input_schema}}


def _chat_choice(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    match choice:
        case None:
            return None
        case OneTool():
            return {"type": "function", "function": {"name": choice.name}}
        case AnyTool():
            return "required"
        case NoTool():
            return "none"
        case _:
            return "auto"


def _chat_format(output: OutputConfig | None) -> dict[str, Any] | None:
    if output is None or output.format is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": output.format.schema_}}
