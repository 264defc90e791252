"""The body of ``POST /v1/chat/completions``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.parsing.tool_calls.json_text import MAX_DEPTH as MAX_CALL_DEPTH
from app.core.settings import Settings
from app.http.schemas.llama_cpp_fields import is_unbounded, one_bound
from app.http.schemas.openai_fields import NO_EFFECT, NoteText
from app.http.schemas.response_format import BoundedObject, require_shallow
from app.http.schemas.sampling_fields import Length
from app.http.schemas.strict import StrictBody
from app.http.schemas.tool_fields import ToolOptions

if TYPE_CHECKING:
    from app.models.text_model import Message

MAX_CALLS = 128
# Names of the most tokens to generate.
BOUNDS = ("max_tokens", "max_completion_tokens", "n_predict")
MAX_TOP_LOGPROBS = 20

# Every escape, so that none is read from its middle; whole pairs before halves.
_ESCAPES = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)

SpeakerName = Annotated[str, StringConstraints(max_length=256)]


class TextPart(StrictBody):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str
    cache_control: BoundedObject | None = Field(None, description=NO_EFFECT)

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, fields: Any) -> Any:
        kind = fields.get("type") if isinstance(fields, dict) else "text"
        if isinstance(kind, str) and kind != "text":
            text = f"messages: parts of the type {kind[:64]!r} are not understood, only text"
            raise UnsupportedParameterError(text, param="messages")
        return fields


Content = str | Annotated[list[TextPart], Field(min_length=1, fail_fast=True)]


class CalledFunction(StrictBody):
    """A call that the assistant made; ``arguments`` is a JSON object as text."""

    name: str
    arguments: str
    parsed_arguments: BoundedObject | None = Field(None, description=f"{NO_EFFECT} OpenAI's SDK sends it back.")


class ToolCall(StrictBody):
    """One call in an assistant's message."""

    id: Annotated[str, StringConstraints(max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(None, ge=0, description=f"{NO_EFFECT} Streams number their calls.")


class PlainMessage(StrictBody):
    """What the caller says."""

    role: Literal["system", "developer", "user"]
    content: Content
    name: SpeakerName | None = Field(None, description="Who speaks, for templates that show it.")


class AssistantMessage(StrictBody):
    """What the model said."""

    role: Literal["assistant"]
    content: Content | None = None
    name: SpeakerName | None = Field(None, description="Who speaks, for templates that show it.")
    refusal: str | None = Field(None, description="Stands for the content where there is none.")
    reasoning_content: str | None = Field(None, description="What it thought, for templates that show it.")
    annotations: Annotated[list[Any], Field(max_length=MAX_CALLS)] | None = Field(None, description=NO_EFFECT)
    parsed: BoundedObject | None = Field(None, description=f"{NO_EFFECT} OpenAI's SDK sends it back.")
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS, fail_fast=True)] | None = None


class ToolMessage(StrictBody):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Annotated[str, StringConstraints(max_length=256)]
    name: SpeakerName | None = Field(None, description="The function's name. Default: that of the call it answers.")


AnyMessage = Annotated[PlainMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class ChatCompletionsBody(ToolOptions):
    """A conversation to be answered, as OpenAI's API has it."""

    messages: Annotated[list[AnyMessage], Field(min_length=1, fail_fast=True)] = Field(description="The conversation.")
    max_tokens: int | None = Field(
        None, ge=-1, description="Most tokens to generate. Default, and -1: what fits the context."
    )
    max_completion_tokens: int | None = Field(None, ge=-1, description="Another name for max_tokens.")
    logprobs: bool | None = Field(None, description="Tell the log-probability of each token.")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS, description="Best tokens told with each.")
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = Field(
        None, description="Text is what there is."
    )
    continue_final_message: bool | None = Field(
        None, description="The last message is the start of the answer, and is gone on with. Default: false."
    )
    add_generation_prompt: bool | None = Field(
        None,
        description="The prompt ends where an answer begins. Default: true, unless a message is gone on with.",
    )
    verbosity: NoteText | None = Field(None, description=NO_EFFECT)
    prediction: BoundedObject | None = Field(None, description=NO_EFFECT)

    @model_validator(mode="after")
    def _check(self) -> ChatCompletionsBody:
        one_bound(self, *BOUNDS)
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidParameterError("top_logprobs: only with logprobs", param="top_logprobs")
        if self.shown_tools and self.constraint is not None:
            raise UnsupportedParameterError("tools: cannot be sent together with a response format", param="tools")
        self.check_choice()
        one_bound(self, "thinking_token_budget", "thinking_budget")
        self._check_end()
        return self

    def _check_end(self) -> None:
        """A message that is gone on with is the assistant's, and holds a text and nothing else."""
        if not self.continue_final_message:
            return
        param, last = "continue_final_message", self.messages[-1]
        if self.add_generation_prompt:
            text = f"{param}: cannot be sent together with add_generation_prompt"
        elif not isinstance(last, AssistantMessage) or last.tool_calls or not self.continued:
            text = f"{param}: the last message is no text of the assistant's"
        else:
            return
        raise InvalidParameterError(text, param=param)

    @property
    def continued(self) -> str | None:
        return _text(self.messages[-1].content) if self.continue_final_message else None

    @property
    def prompt_end(self) -> dict[str, bool]:
        """What the chat template's renderer is told of where the prompt ends, where that is not usual."""
        if self.continue_final_message:
            return {"add_generation_prompt": False, "continue_final_message": True}
        return {"add_generation_prompt": False} if self.add_generation_prompt is False else {}

    @property
    def has_tool_messages(self) -> bool:
        """Whether the conversation holds calls or their answers."""
        return any(isinstance(one, ToolMessage) or getattr(one, "tool_calls", None) for one in self.messages)

    @property
    def prompt_param(self) -> str:
        return "messages"

    @property
    def num_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def length(self, settings: Settings) -> Length:
        name, bound = one_bound(self, *BOUNDS)
        return Length(name, None if is_unbounded(bound) else bound, None)

    def _calls(self) -> Iterator[ToolCall]:
        for message in self.messages:
            yield from getattr(message, "tool_calls", None) or []

    def conversation(self, default_system: str | None) -> list[Message]:
        """Messages for the chat template, with the server's system message where there is none."""
        names = {call.id: call.function.name for call in self._calls()}
        messages = [_for_template(message, names) for message in self.messages]
        has_own = any(message["role"] == "system" for message in messages)
        return messages if has_own or not default_system else [_system(default_system), *messages]


def _system(content: str) -> Message:
    return {"role": "system", "content": content}


def _for_template(message: PlainMessage | AssistantMessage | ToolMessage, called: dict[str, str]) -> Message:
    """A message with the names and ids that templates show. ``called`` holds the functions' names by call id."""
    role = "system" if message.role == "developer" else message.role
    shown: Message = {"role": role, "content": _text(message.content)}
    name = message.name
    if isinstance(message, AssistantMessage):
        if message.reasoning_content is not None:
            shown["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            shown["tool_calls"] = [_call(call) for call in message.tool_calls]
        # A template tells by `none` that there is nothing but calls.
        elif shown["content"] is None:
            shown["content"] = message.refusal or ""
    if isinstance(message, ToolMessage):
        shown["tool_call_id"] = message.tool_call_id
        name = name or called.get(message.tool_call_id)
    return shown if name is None else {**shown, "name": name}


def _text(content: str | list[TextPart] | None) -> str | None:
    return content if content is None or isinstance(content, str) else "".join(part.text for part in content)


def _call(call: ToolCall) -> dict[str, Any]:
    """Templates render the arguments as an object, where OpenAI's API sends them as text."""
    try:
        arguments = json.loads(without_halves(call.function.arguments) or "{}")
        if not isinstance(arguments, dict):
            raise ValueError("they are no object")
        require_shallow(arguments, max_depth=MAX_CALL_DEPTH)
    except (ValueError, RecursionError):
        text = "messages: the arguments of a tool call must be a JSON object, not nested too deeply"
        raise InvalidParameterError(text, param="messages") from None
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def without_halves(source: str) -> str:
    """JSON without escaped halves of surrogate pairs, which a model may write and no tokenizer reads."""
    return _ESCAPES.sub(lambda found: "\\ufffd" if found["half"] else found[0], source)
