"""Items of a conversation, tools and formats, as OpenAI's Responses API has them: parts of its body."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from app.http.dialects.known_kinds import only
from app.http.schemas.chat_body import MAX_CALLS
from app.http.schemas.openai_fields import NO_EFFECT
from app.http.schemas.response_format import BoundedObject, JsonObjectFormat, TextFormat
from app.http.schemas.strict import StrictBody
from app.http.schemas.tool_fields import FunctionName

ItemId = Annotated[str, StringConstraints(max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]
ANSWERED = "Comes back with an answer; has no effect."


class Item(StrictBody):
    """What every item may bear."""

    id: ItemId | None = Field(None, description=ANSWERED)
    status: Status | None = Field(None, description=ANSWERED)


class InputText(StrictBody):
    """Text of the caller's."""

    type: Literal["input_text"]
    text: str


class OutputText(StrictBody):
    """Text of the model's."""

    type: Literal["output_text"]
    text: str
    annotations: Annotated[list[Any], Field(max_length=MAX_CALLS)] | None = Field(None, description=ANSWERED)
    logprobs: list[Any] | None = Field(None, description=ANSWERED)


class Refusal(StrictBody):
    """What the model said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


CallersPart = Annotated[InputText, only("input_text")]
CallersParts = Annotated[list[CallersPart], Field(fail_fast=True)]
ModelsPart = Annotated[
    Annotated[OutputText | Refusal | InputText, Field(discriminator="type")],
    only("output_text", "refusal", "input_text"),
]


class CallersMessage(Item):
    """What the caller says."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    content: str | CallersParts


class ModelsMessage(Item):
    """What the model said."""

    type: Literal["message"] = "message"
    role: Literal["assistant"]
    content: str | Annotated[list[ModelsPart], Field(fail_fast=True)]
    phase: Literal["commentary", "final_answer"] | None = Field(None, description=NO_EFFECT)


class FunctionCallItem(Item):
    """A call that the model made, of whatever name it gave; ``arguments`` is a JSON object as text."""

    type: Literal["function_call"]
    call_id: ItemId
    name: ItemId
    arguments: str


class FunctionOutputItem(Item):
    """What a function answered."""

    type: Literal["function_call_output"]
    call_id: ItemId
    output: str | CallersParts


class SummaryText(StrictBody):
    """Reasoning in short."""

    type: Literal["summary_text"]
    text: str


class ReasoningText(StrictBody):
    """Reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningInputItem(Item):
    """What the model thought, for templates that show it."""

    type: Literal["reasoning"]
    summary: Annotated[list[SummaryText], Field(fail_fast=True)] | None = Field(
        None, description="Stands for the content where there is none."
    )
    content: Annotated[list[ReasoningText], Field(fail_fast=True)] | None = None
    encrypted_content: str | None = Field(None, description=f"{NO_EFFECT} Nobody here can read it.")


def _kind(item: Any) -> str:
    """Which schema an item is held to: messages differ by their role, the others by their type."""
    kind = item.get("type", "message") if isinstance(item, dict) else "message"
    if kind == "message" and isinstance(item, dict) and item.get("role") == "assistant":
        return "assistant"
    return kind if isinstance(kind, str) else "message"


# No discriminator in the OpenAPI description: it knows none that looks at two fields.
InputItem = Annotated[
    Annotated[
        Annotated[CallersMessage, Tag("message")]
        | Annotated[ModelsMessage, Tag("assistant")]
        | Annotated[FunctionCallItem, Tag("function_call")]
        | Annotated[FunctionOutputItem, Tag("function_call_output")]
        | Annotated[ReasoningInputItem, Tag("reasoning")],
        Discriminator(_kind),
    ],
    only("message", "function_call", "function_call_output", "reasoning", implied="message"),
]


class FunctionTool(StrictBody):
    """A function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: BoundedObject | None = None
    strict: bool | None = Field(None, description="Arguments follow the schema, by a grammar. Default: false.")


class NamedFunction(StrictBody):
    """The function that the model has to call."""

    type: Literal["function"]
    name: FunctionName


OwnFunction = Annotated[FunctionTool, only("function")]
FunctionByName = Annotated[NamedFunction, only("function")]


class FlatSchemaFormat(StrictBody):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    name: Annotated[str, StringConstraints(pattern="^[a-zA-Z0-9_-]{1,64}$")] = Field(description=ANSWERED)
    description: str | None = Field(None, description=ANSWERED)
    schema_: BoundedObject = Field(alias="schema", description="The schema; one that cannot be followed is refused.")
    strict: bool | None = Field(None, description="Has no effect: the schema is always followed exactly.")


AnswerFormat = Annotated[TextFormat | JsonObjectFormat | FlatSchemaFormat, Field(discriminator="type")]
