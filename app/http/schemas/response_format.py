"""``response_format``: what a completion must match. OpenAI's field, on every generating route."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from app.core.jobs import Constraint
from app.http.schemas.strict import StrictBody

MAX_DEPTH = 50


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


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
