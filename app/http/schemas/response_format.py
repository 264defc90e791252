"""What a completion must match: OpenAI's ``response_format``, vLLM's ``structured_outputs``; on generating routes."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError
from app.core.work.sampling_params import Constraint
from app.http.schemas.strict import StrictBody

MAX_DEPTH = 50
MAX_REGEX_LENGTH = 4096
MAX_GRAMMAR_LENGTH = 65_536
MAX_CHOICES = 1024
MAX_CHOICE_LENGTH = 4096
PARAM = "structured_outputs"


def require_shallow(value: dict[str, Any], *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """``value``, unless it is nested too deeply for those who walk it. Raises ValueError."""
    level: list[Any] = [value]
    for _ in range(max_depth):
        children = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [child for group in children for child in group]
    if level:
        raise ValueError(f"is nested more than {max_depth} levels deep")
    return value


BoundedObject = Annotated[dict[str, Any], AfterValidator(require_shallow)]


class TextFormat(StrictBody):
    """No constraint."""

    type: Literal["text"]

    def constraint(self) -> Constraint | None:
        return None


class JsonObjectFormat(StrictBody):
    """Any JSON object."""

    type: Literal["json_object"]

    def constraint(self) -> Constraint | None:
        return Constraint("json_schema", '{"type": "object"}')


class JsonSchema(StrictBody):
    """A named JSON schema."""

    name: Annotated[str, StringConstraints(pattern="^[a-zA-Z0-9_-]{1,64}$")] = Field(description="Has no effect.")
    description: str | None = Field(None, description="Has no effect.")
    schema_: BoundedObject = Field(alias="schema", description="The schema; one that cannot be followed is refused.")
    strict: bool | None = Field(None, description="Has no effect: the schema is always followed exactly.")


class JsonSchemaFormat(StrictBody):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema

    def constraint(self) -> Constraint | None:
        return Constraint("json_schema", json.dumps(self.json_schema.schema_))


class StructuredOutputs(StrictBody):
    """vLLM's field: one of these says what the whole completion must be."""

    json_: BoundedObject | str | None = Field(None, alias="json", description="A JSON schema, or one as text.")
    json_object: Literal[True] | None = Field(None, description="Any JSON object.")
    regex: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REGEX_LENGTH)] | None = Field(
        None, description="A regular expression."
    )
    choice: (
        Annotated[
            list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_CHOICE_LENGTH)]],
            Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True),
        ]
        | None
    ) = Field(None, description="Texts, one of which it is.")
    grammar: Annotated[str, StringConstraints(min_length=1, max_length=MAX_GRAMMAR_LENGTH)] | None = Field(
        None, description="A grammar in llguidance's Lark notation, with a rule named start."
    )

    @model_validator(mode="after")
    def _one(self) -> StructuredOutputs:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("should hold exactly one of json, json_object, regex, choice, grammar")
        return self

    def constraint(self) -> Constraint:
        """What the completion must match. Raises ``InvalidParameterError`` where a schema as text is none."""
        if self.choice is not None:
            texts = dict.fromkeys(json.dumps(text, ensure_ascii=False) for text in self.choice)
            return Constraint("lark", f"start: {' | '.join(texts)}\n", PARAM)
        if self.regex is not None:
            return Constraint("regex", self.regex, PARAM)
        if self.grammar is not None:
            return Constraint("lark", self.grammar, PARAM)
        return Constraint("json_schema", json.dumps(self._schema()), PARAM)

    def _schema(self) -> dict[str, Any]:
        if not isinstance(self.json_, str):
            return {"type": "object"} if self.json_ is None else self.json_
        try:
            schema = json.loads(self.json_)
            if not isinstance(schema, dict):
                raise ValueError("is no object")
            return require_shallow(schema)
        except (ValueError, RecursionError):
            text = f"{PARAM}: json is no JSON schema"
            raise InvalidParameterError(text, param=PARAM) from None


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
