"""Schemas as pydantic, zod and OpenAPI generators make them: each is followed exactly, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import BadRequestError
from tests.thinned import few_of
from tests.unit.models.json_schemas import openapi_set, pydantic_set, zod_set
from tests.unit.models.json_schemas.sampled import compiled, constraints, judge, write

PYDANTIC = pydantic_set.schemas()
FOLLOWED = {
    **{f"pydantic {name}": schema for name, schema in PYDANTIC.items() if name not in pydantic_set.REFUSED},
    **{f"zod {name}": schema for name, schema in zod_set.FOLLOWED.items()},
    **{f"openapi {name}": schema for name, schema in openapi_set.FOLLOWED.items()},
}
REFUSED = {
    **{f"pydantic {name}": (PYDANTIC[name], word) for name, word in pydantic_set.REFUSED.items()},
    **{f"zod {name}": pair for name, pair in zod_set.REFUSED.items()},
    **{f"openapi {name}": pair for name, pair in openapi_set.REFUSED.items()},
}
NUM_SEEDS = 3


@pytest.fixture(scope="module")
def owner():
    made = constraints()
    yield made
    made.close()


@pytest.mark.parametrize("name", few_of(FOLLOWED, 40))
def test_what_a_generated_schema_gives_is_valid(owner, name: str):
    schema: Any = FOLLOWED[name]
    grammar = compiled(owner, schema)
    texts = [write(grammar, seed) for seed in range(NUM_SEEDS)]
    assert any(text is not None for text in texts), "nothing came to its end"
    for text in texts:
        if text is not None:
            judge(text, schema)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_followed_is_refused_by_its_name(owner, name: str):
    schema, word = REFUSED[name]
    with pytest.raises(BadRequestError) as refusal:
        compiled(owner, schema)
    assert word in refusal.value.message
    assert refusal.value.param == "response_format"


def test_there_are_enough_schemas():
    assert len(FOLLOWED) + len(REFUSED) >= 94
