"""``response_format`` and ``regex`` over HTTP on the real engine: what they promise, and what they refuse."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any

import pytest

from tests.contract.real import RealWorld

# A schema string of more than 100 bytes whose 100th lies inside a character: llguidance 1.9 panics.
SPLIT = "a" + "姓名" * 40


@pytest.fixture(scope="module")
def world(model_folder):
    world = RealWorld(model_folder("qwen2"), max_batch_size=8)
    yield world
    world.stop()


@pytest.fixture
def client(world):
    return world.client()


def ask(client: Any, schema: Any, **fields: Any) -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"prompt": "x", "max_new_tokens": 200, "temperature": 1.0, "seed": 3, "response_format": form, **fields}
    return client.post("/complete", json=body)


def require_refusal(response: Any, place: str, code: str) -> None:
    error = response.json["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "response_format", code)
    assert error["message"].startswith(f"response_format: {place}"), error["message"]


BEYOND = 1234567890123456789
ONE = {"const": 1}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"const": BEYOND}, ""),
        ({"enum": [1, BEYOND]}, ""),
        ({"type": "object", "properties": {"a": {"type": "integer", "minimum": BEYOND}}}, "#/properties/a/minimum"),
        ({"type": "integer", "maximum": -BEYOND}, "#/maximum"),
        (
            {"type": "array", "prefixItems": [{"type": "number", "exclusiveMaximum": 1e17}]},
            "#/prefixItems/0/exclusiveM",
        ),
    ],
)
def test_numbers_beyond_what_doubles_hold_are_refused(client, schema, place):
    require_refusal(ask(client, schema), place, "unsupported_parameter")


def test_the_largest_exact_number_is_exact(client):
    assert ask(client, {"const": 2**53}).json["completion"] == str(2**53)
    assert ask(client, {"const": -(2**53) + 1}).json["completion"] == str(-(2**53) + 1)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"const": 1}, "minProperties": 4, "maxProperties": 6},
        {
            "type": "object",
            "patternProperties": {"^[ab]+$": {"const": 1}},
            "additionalProperties": False,
            "minProperties": 4,
        },
        {
            "type": "object",
            "properties": {"a": {"const": 1}},
            "required": ["a"],
            "additionalProperties": {"const": 1},
            "minProperties": 4,
        },
        {
            "type": "array",
            "minItems": 3,
            "items": {"type": "object", "additionalProperties": {"const": 1}, "minProperties": 2},
        },
    ],
)
def test_no_name_comes_twice_however_likely_its_tokens_are(client, world, schema):
    model = world.inference.handles[0].model
    likely = {str(token): 60.0 for text in ("a", '"', "b") for token in model.encode(text, add_special_tokens=False)}
    names: list[list[str]] = []
    for seed in range(4):
        answer = ask(client, schema, seed=seed, logit_bias=likely, max_new_tokens=300).json
        if answer["finish_reason"] == "stop":
            json.loads(answer["completion"], object_pairs_hook=lambda pairs: names.append([name for name, _ in pairs]))
            assert "\\u" not in answer["completion"]
    assert names
    assert all(len(one) == len(set(one)) for one in names)


def test_dates_are_real_ones(client):
    for seed in range(12):
        text = json.loads(ask(client, {"type": "string", "format": "date"}, seed=seed).json["completion"])
        assert date.fromisoformat(text)
    for day in ("2023-02-29", "0000-01-01", "1900-02-29", "2023-04-31"):
        require_refusal(ask(client, {"type": "string", "format": "date", "const": day}), "#", "invalid_parameter")
    for moment in ("2023-02-28T23:59:60Z", "2023-02-28T24:00:00Z"):
        refused = ask(client, {"type": "string", "format": "date-time", "const": moment})
        require_refusal(refused, "#", "invalid_parameter")
    leap = "2000-02-29"
    assert ask(client, {"type": "string", "format": "date", "const": leap}).json["completion"] == f'"{leap}"'


NEEDS_ITSELF = {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"$ref": "#/$defs/a", "$defs": {"a": NEEDS_ITSELF}}, "#/$defs/a"),
        ({"$ref": "#"}, "#: leads back to itself"),
        (
            {
                "$ref": "#/$defs/a",
                "$defs": {
                    "a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
                    "b": {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1},
                },
            },
            "#/$defs/a/properties/b",
        ),
        ({"type": "array", "items": False, "minItems": 1}, "#/items"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, ""),
        ({"type": "string", "enum": [1, 2]}, ""),
        (
            {
                "type": "object",
                "properties": {"a": {"allOf": [{"type": "string"}, {"type": "null"}]}},
                "required": ["a"],
            },
            "#/properties/a",
        ),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "#/properties/a"),
        ({"type": "object", "additionalProperties": False, "minProperties": 1}, ""),
        ({"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6}, ""),
    ],
)
def test_what_nothing_can_match_is_refused_with_its_place(client, schema, place):
    require_refusal(ask(client, schema), place, "invalid_parameter")


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "integer", "multipleOf": 9999991}, "#/multipleOf"),
        ({"type": "integer", "multipleOf": 19999999}, "#/multipleOf"),
        ({"type": "object", "patternProperties": {f"^a{i}.*b{i}$": {} for i in range(400)}}, "#/patternProperties"),
        ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, "#/allOf/1/multipleOf"),
        ({"type": "string", "pattern": "((a{1000}){1000}){1000}"}, "#/pattern"),
        ({"type": "array", "minItems": 10**7}, "#/minItems"),
        ({"type": "array", "minItems": 1000, "items": {"type": "array", "minItems": 1000}}, ""),
        ({"enum": list(range(5000))}, "#/enum"),
    ],
)
@pytest.mark.parametrize("n", [1, 16])
def test_what_costs_too_much_is_refused_before_anything_is_compiled(client, schema, place, n):
    require_refusal(ask(client, schema, n=n), place, "constraint_too_costly")


@pytest.mark.parametrize(
    "schema",
    [
        {"minLength": SPLIT},
        {"multipleOf": SPLIT},
        {"type": SPLIT},
        {"required": SPLIT},
        {"properties": SPLIT},
        {"format": SPLIT},
        {"$ref": SPLIT},
        {"allOf": [SPLIT]},
        {"items": SPLIT},
        {SPLIT: SPLIT},
    ],
)
def test_no_value_of_a_keyword_makes_the_compiler_panic(client, schema):
    response = ask(client, schema)
    assert response.status_code == 400
    assert response.json["error"]["param"] == "response_format"


@pytest.mark.parametrize("family", ["incoder", "code-llama"])
def test_a_hole_may_end_where_its_constraint_may(model_folder, family):
    world = RealWorld(model_folder(family))
    try:
        client, model = world.client(), world.inference.handles[0].model
        ends = model.encode_infill(["x = ", "\n"], []).stop_ids
        likely = {str(token): 100.0 for token in ends}
        fields = {"temperature": 0, "logit_bias": likely}
        hole = {"prefix": "x = ", "suffix": "\n", "max_new_tokens": 40, **fields}
        answer = client.post("/infill", json={**hole, "regex": r"(.|\n)*"}).json
        assert (answer["infills"], answer["usage"]["completion_tokens"]) == ([""], 1)
        answer = client.post("/infill", json={**hole, "regex": "[a-z]{3}"}).json
        assert re.fullmatch("[a-z]{3}", answer["infills"][0])
        body = {"prompt": "x = ", "suffix": "\n", "max_tokens": 40, **fields}
        choice = client.post("/v1/completions", json={**body, "regex": r"(.|\n)*"}).json["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == ("", "stop")
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "boolean"}}}
        choice = client.post("/v1/completions", json={**body, "response_format": form}).json["choices"][0]
        assert (choice["text"] in ("true", "false"), choice["finish_reason"]) == (True, "stop")
    finally:
        world.stop()


def test_choices_of_one_request_share_one_grammar(client, world):
    constraints = world.inference.handles[0].model.constraints
    before = len(constraints._cache)
    texts = [
        one["text"]
        for one in client.post(
            "/v1/completions", json={"prompt": "x", "n": 16, "max_tokens": 30, "regex": "[a-z]{4}", "temperature": 1}
        ).json["choices"]
    ]
    assert len(texts) == 16 and all(re.fullmatch("[a-z]{4}", text) for text in texts)
    assert len(constraints._cache) == before + 1
