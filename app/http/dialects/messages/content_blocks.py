"""Messages, their content and tools, as Anthropic's API has them: parts of its bodies."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from app.core.parsing.tool_calls.json_text import MAX_DEPTH as MAX_CALL_DEPTH
from app.http.dialects.known_kinds import only
from app.http.schemas.chat_body import MAX_CALLS
from app.http.schemas.openai_fields import NO_EFFECT
from app.http.schemas.response_format import BoundedObject, require_shallow
from app.http.schemas.strict import StrictBody
from app.http.schemas.tool_fields import FunctionName

CallId = Annotated[str, StringConstraints(max_length=256)]
CallInput = Annotated[dict[str, Any], AfterValidator(partial(require_shallow, max_depth=MAX_CALL_DEPTH))]
NOT_CHECKED = "Comes back with an answer; is not checked."


class CachedPart(StrictBody):
    """What a caller may mark as worth keeping: prefixes are kept anyway."""

    cache_control: BoundedObject | None = Field(None, description=NO_EFFECT)


class TextBlock(CachedPart):
    """Text."""

    type: Literal["text"]
    text: str
    citations: Annotated[list[Any], Field(max_length=MAX_CALLS)] | None = Field(None, description=NO_EFFECT)


class ToolUseBlock(CachedPart):
    """A call that the model made, of whatever name it gave."""

    type: Literal["tool_use"]
    id: CallId
    name: CallId
    input: CallInput
    caller: BoundedObject | None = Field(None, description=NO_EFFECT)


OnlyText = Annotated[TextBlock, only("text")]
TextBlocks = Annotated[list[OnlyText], Field(fail_fast=True)]


class ToolResultBlock(CachedPart):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: str | TextBlocks | None = None
    is_error: bool | None = Field(None, description=f"{NO_EFFECT} The content tells it.")


class ThinkingBlock(StrictBody):
    """What the model thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = Field(None, description=NOT_CHECKED)


class RedactedThinkingBlock(StrictBody):
    """What another service's model thought, unreadable: it is left out."""

    type: Literal["redacted_thinking"]
    data: str


UserBlock = Annotated[Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")], only("text", "tool_result")]
AssistantBlock = Annotated[
    Annotated[TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock, Field(discriminator="type")],
    only("text", "tool_use", "thinking", "redacted_thinking"),
]


class UserTurn(StrictBody):
    """What the caller says, and what its tools answered."""

    role: Literal["user"]
    content: str | Annotated[list[UserBlock], Field(min_length=1, fail_fast=True)]


class AssistantTurn(StrictBody):
    """What the model said."""

    role: Literal["assistant"]
    content: str | Annotated[list[AssistantBlock], Field(fail_fast=True)]


class SystemTurn(StrictBody):
    """Instructions in the middle of a conversation."""

    role: Literal["system"]
    content: str | TextBlocks


Turn = Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]


class CustomTool(CachedPart):
    """A function that the model may call."""

    type: Literal["custom"] = "custom"
    name: FunctionName
    description: str | None = None
    input_schema: BoundedObject
    strict: bool | None = Field(None, description="Input follows the schema, by a grammar.")
    eager_input_streaming: bool | None = Field(None, description=f"{NO_EFFECT} Input is streamed as it comes.")
    input_examples: Annotated[list[BoundedObject], Field(max_length=MAX_CALLS)] | None = Field(
        None, description=NO_EFFECT
    )
    allowed_callers: Annotated[list[Literal["direct"]], Field(max_length=1)] | None = Field(
        None, description="The model itself is the one caller."
    )
    defer_loading: Literal[False] | None = Field(None, description="Every tool is shown.")


OwnTool = Annotated[CustomTool, only("custom", implied="custom")]


class ToolsAtWill(StrictBody):
    """The model decides."""

    type: Literal["auto"]
    disable_parallel_tool_use: bool | None = Field(None, description="true: at most one call.")


class AnyTool(StrictBody):
    """The model calls."""

    type: Literal["any"]
    disable_parallel_tool_use: bool | None = Field(None, description="true: exactly one call.")


class OneTool(StrictBody):
    """The model calls this one, once."""

    type: Literal["tool"]
    name: FunctionName
    disable_parallel_tool_use: bool | None = Field(None, description=f"{NO_EFFECT} It is called once.")


class NoTool(StrictBody):
    """The tools are not shown to the model."""

    type: Literal["none"]


ToolChoice = Annotated[ToolsAtWill | AnyTool | OneTool | NoTool, Field(discriminator="type")]
