"""JSON schemas as pydantic makes them, of models that people write."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal

from pydantic import (
    UUID4,
    AnyUrl,
    Base64Str,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    IPvAnyAddress,
    Json,
    NegativeInt,
    PositiveInt,
    RootModel,
    SecretStr,
    StringConstraints,
    Tag,
    TypeAdapter,
)


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3


class Address(BaseModel):
    street: str
    city: str = Field(max_length=20)
    zip_code: str = Field(pattern=r"^\d{5}(-\d{4})?$")


class User(BaseModel):
    """A user."""

    name: str = Field(description="Full name", examples=["Ada"])
    age: int = Field(ge=0, le=150)
    address: Address
    previous: list[Address] = Field(default_factory=list, max_length=2)


class Event(BaseModel):
    on: datetime.date
    at: datetime.time
    when: datetime.datetime
    took: datetime.timedelta


class Optionals(BaseModel):
    a: int | None = None
    b: str | None = Field(default=None, max_length=5)
    c: float | None


class Tree(BaseModel):
    value: int = Field(ge=0, le=9)
    children: list[Tree] = Field(default_factory=list, max_length=2)


class Linked(Closed):
    value: bool
    next: Linked | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    breed: Literal["pug", "lab"]


class Lizard(BaseModel):
    kind: Literal["reptile", "lizard"]
    scales: bool


class Owner(BaseModel):
    pet: Cat | Dog | Lizard = Field(discriminator="kind")


class Pets(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = Field(min_length=1, max_length=3)


def _tag(value: Any) -> str:
    return "a"


class Tagged(BaseModel):
    pet: Annotated[Annotated[Cat, Tag("a")] | Annotated[Dog, Tag("b")], Discriminator(_tag)]


class Plain(BaseModel):
    value: int | str | bool | None


class Maps(BaseModel):
    scores: dict[str, int]
    nested: dict[str, dict[str, bool]]


class NamedMap(BaseModel):
    by_code: dict[Annotated[str, StringConstraints(pattern=r"^[a-z]+$")], int] = Field(min_length=1)


class ByColor(BaseModel):
    amounts: dict[Color, PositiveInt]


class Tuples(BaseModel):
    point: tuple[float, float]
    named: tuple[str, int, bool]
    many: tuple[int, ...]


class Ids(BaseModel):
    id: uuid.UUID
    other: UUID4


class Web(BaseModel):
    url: AnyUrl
    ip: IPvAnyAddress


class Secrets(BaseModel):
    password: SecretStr
    blob: bytes
    encoded: Base64Str


class Money(BaseModel):
    amount: decimal.Decimal = Field(max_digits=8, decimal_places=2)


class Steps(BaseModel):
    even: int = Field(multiple_of=2, ge=0, le=100)
    ratio: float = Field(gt=0, lt=1)
    below: NegativeInt


class Constants(BaseModel):
    version: Literal[1] = 1
    flag: Literal[True]
    mixed: Literal["a", 2, None]


class Free(BaseModel):
    anything: Any
    objects: dict[str, Any]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Set(BaseModel):
    tags: set[str]


class Aliased(BaseModel):
    snake: int = Field(alias="camelCase")
    dashed: str = Field(alias="with-dash", max_length=3)
    quoted: str = Field(alias='with"quote', max_length=3)


class Embedded(BaseModel):
    raw: Json[dict[str, int]]


class Extra(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"a": 1}], "x-order": 3})
    a: int = Field(deprecated=True, json_schema_extra={"readOnly": True})


class Names(RootModel[list[Annotated[str, StringConstraints(min_length=1, max_length=4)]]]):
    pass


class Expression(Closed):
    op: Literal["+", "*"]
    left: Expression | int
    right: Expression | int


Many = enum.Enum("Many", {f"V{i}": f"value-{i}" for i in range(500)})


class OfMany(BaseModel):
    choice: Many
    choices: list[Many] = Field(max_length=2)


MODELS: list[type[BaseModel]] = [
    *(Address, User, Event, Optionals, Tree, Linked, Owner, Pets, Tagged, Plain, Maps, NamedMap, ByColor, Tuples, Ids),
    *(Web, Secrets, Money, Steps, Constants, Free, Open, Set, Aliased, Embedded, Extra, Names, Expression, OfMany),
]
TYPES: dict[str, Any] = {
    "int": int,
    "str or None": str | None,
    "list of int or str": list[int | str],
    "dict of lists": dict[str, list[int]],
    "bounded list": Annotated[list[bool], Field(min_length=2, max_length=3)],
    "date or datetime": datetime.date | datetime.datetime,
    "Color": Color,
    "Level": Level,
    "union of models": Cat | Dog,
    "literal": Literal["a", "b"],
    "frozenset": frozenset[int],
}
# What pydantic writes and is refused, with the keyword that the refusal names.
REFUSED = {"Set": "uniqueItems", "frozenset": "uniqueItems"}


def schemas() -> dict[str, Any]:
    """Every schema by its name."""
    made = {model.__name__: model.model_json_schema(by_alias=True) for model in MODELS}
    return made | {name: TypeAdapter(kind).json_schema() for name, kind in TYPES.items()}
