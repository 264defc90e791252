"""``response_format`` and ``regex`` over HTTP on the real engine: what they promise, and what they refuse."""

from __future__ import annotations

import json
import re
from datetime import date
from typing import Any

import pytest

from app.models.tokens.model_forms import ModelForms
from tests.contract.real import RealWorld
from tests.thinned import few_of

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


SIGN = "<|im_end|>"


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": SIGN}}}},
            f'"{SIGN}"',
        ),
        ({"regex": re.escape(f"a/{SIGN}b")}, f"a/{SIGN}b"),
        ({"structured_outputs": {"choice": [f"a{SIGN}b"]}}, f"a{SIGN}b"),
    ],
    ids=["schema", "regex", "choice"],
)
def test_a_special_tokens_name_in_what_is_asked_for_is_text(client, wanted, text):
    answer = client.post("/complete", json={"prompt": "x", "max_new_tokens": 60, **wanted}).json
    assert (answer.get("completion"), answer.get("finish_reason")) == (text, "stop"), answer


def structured(client: Any, **wanted: Any) -> Any:
    body = {"prompt": "x", "max_new_tokens": 60, "temperature": 1.0, "seed": 3, "structured_outputs": wanted}
    return client.post("/complete", json=body)


COLOURS = ["red", 'b"l{ue', "grün 🟢", "line\nbreak\\", "red wine"]


def test_a_choice_is_one_of_its_texts(client):
    for seed in range(4):
        body = {"prompt": "x", "seed": seed, "temperature": 1.0, "structured_outputs": {"choice": COLOURS}}
        answer = client.post("/complete", json={**body, "max_new_tokens": 60}).json
        assert answer["completion"] in COLOURS and answer["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("wanted", "pattern"),
    [
        ({"regex": "[ab]{2,5}"}, "[ab]{2,5}"),
        ({"grammar": 'start: word ("-" word)?\nword: "a" | /[xyz]{1,3}/'}, "(a|[xyz]{1,3})(-(a|[xyz]{1,3}))?"),
        ({"grammar": 'start: "n=" num\nnum: %json {"type": "integer", "minimum": 0, "maximum": 9}'}, "n=[0-9]"),
        ({"json": {"enum": ["a", 7]}}, '"a"|7'),
        ({"json": '{"enum": [true]}'}, "true"),
    ],
)
def test_structured_outputs_are_followed(client, wanted, pattern):
    answer = structured(client, **wanted).json
    assert answer["finish_reason"] == "stop" and re.fullmatch(pattern, answer["completion"]), answer


def test_a_streamed_choice_on_the_chat_route_is_one_of_its_texts(client):
    body = {"messages": [{"role": "user", "content": "x"}], "structured_outputs": {"choice": ["yes", "no"]}}
    answer = client.post("/v1/chat/completions", json=body).json["choices"][0]
    assert answer["message"]["content"] in ("yes", "no") and answer["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({}, "invalid_parameter"),
        ({"choice": []}, "invalid_parameter"),
        ({"choice": [""]}, "invalid_parameter"),
        ({"choice": ["a"], "regex": "a"}, "invalid_parameter"),
        ({"json_object": False}, "invalid_parameter"),
        ({"json": "{"}, "invalid_parameter"),
        ({"json": "[" * 5000}, "invalid_parameter"),
        ({"json": {"not": {"type": "null"}}}, "unsupported_parameter"),
        ({"grammar": "root ::= 'a'"}, "invalid_parameter"),
        ({"grammar": "start: missing"}, "invalid_parameter"),
        ({"grammar": "start: start"}, "invalid_parameter"),
        ({"structural_tag": "x"}, "unsupported_parameter"),
    ],
)
def test_structured_outputs_that_cannot_be_followed_are_refused(client, wanted, code):
    response = structured(client, **wanted)
    error = response.json["error"]
    assert response.status_code == 400 and error["param"].startswith("structured_outputs")
    assert error["code"] == code


def test_structured_outputs_go_with_no_other_constraint(client):
    body = {"prompt": "x", "regex": "a", "structured_outputs": {"choice": ["a"]}}
    assert client.post("/complete", json=body).json["error"]["param"] == "structured_outputs"


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Bonn", "Köln"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]


@pytest.fixture
def with_tools(world):
    model = world.inference.model
    template = model.tokenizer.chat_template
    model.tokenizer.chat_template = "{{ tools | tojson }}" + template
    yield
    model.tokenizer.chat_template = template


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_required_call_on_the_real_engine_conforms_to_its_schema(client, with_tools, choice, is_streamed):
    body = {"messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "tool_choice": choice, "seed": 1}
    body |= {"parallel_tool_calls": False, "stream": is_streamed, "max_tokens": 200}
    response = client.post("/v1/chat/completions", json=body)
    if is_streamed:
        lines = response.get_data(as_text=True).split("\n\n")
        choices = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
        parts = [part["function"] for one in choices for part in one["delta"].get("tool_calls", [])]
        names, arguments = [part["name"] for part in parts if "name" in part], "".join(p["arguments"] for p in parts)
        reason = choices[-1]["finish_reason"]
    else:
        found = response.json["choices"][0]
        functions = [call["function"] for call in found["message"]["tool_calls"]]
        names, arguments = [one["name"] for one in functions], functions[0]["arguments"]
        reason = found["finish_reason"]
    given = json.loads(arguments)
    assert names == ["weather"] and reason == "tool_calls"
    assert given["city"] in ("Bonn", "Köln") and 1 <= given["days"] <= 9 and len(given) == 2


@pytest.fixture(params=["think", "opened"])
def thinker(world, request):
    """The same model with a template that knows reasoning, and opens it or leaves that to the model."""
    model = world.inference.model
    template, forms = model.tokenizer.chat_template, model.forms
    opening = "<think>" if request.param == "opened" else ""
    model.tokenizer.chat_template = "{{ tools | tojson }}" + template + opening + "{# </think> #}"
    model.forms = ModelForms(model.tokenizer)
    yield request.param == "opened"
    model.tokenizer.chat_template, model.forms = template, forms


SHORT = {"type": "object", "properties": {"a": {"enum": [1, "x"]}}, "required": ["a"], "additionalProperties": False}
WANTED = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SHORT}}},
    {"structured_outputs": {"regex": "[ab]{3}"}},
    {"structured_outputs": {"choice": ["yes", "no"]}},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": SHORT}}], "tool_choice": "required"},
]


@pytest.mark.parametrize("wanted", few_of(WANTED, 2), ids=["schema", "regex", "choice", "required"])
def test_reasoning_within_its_budget_comes_before_an_answer_that_is_held(client, thinker, wanted):
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 300, "thinking_token_budget": 12, **wanted}
    for seed in range(3):
        answer = client.post("/v1/chat/completions", json={**body, "seed": seed}).json
        [choice] = answer["choices"]
        message, num_tokens = choice["message"], answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        if thinker:
            # What closes it is counted, too; a character behind which that stands is 4 tokens at most.
            assert 0 < num_tokens <= 12 + 4
        if "tools" in wanted:
            calls = message.get("tool_calls", [])
            assert message["content"] is None or choice["finish_reason"] == "length"
            assert choice["finish_reason"] == "length" or [json.loads(call["function"]["arguments"]) for call in calls]
        elif "response_format" in wanted:
            assert json.loads(message["content"])["a"] in (1, "x")
        else:
            assert re.fullmatch("[ab]{3}|yes|no", message["content"])


def test_log_probabilities_under_a_constraint_are_the_models_own(client):
    body = {"prompt": "x", "max_tokens": 1, "temperature": 0, "logprobs": 5}
    free = client.post("/v1/completions", json=body).json["choices"][0]["logprobs"]
    held = client.post("/v1/completions", json={**body, "regex": "[0-9]"}).json["choices"][0]["logprobs"]
    assert held["top_logprobs"][0].items() >= free["top_logprobs"][0].items()
    [token] = held["tokens"]
    assert token in "0123456789" and held["token_logprobs"][0] < max(free["top_logprobs"][0].values())
