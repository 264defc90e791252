"""Calls that a grammar holds to their schemas: whatever tokens are drawn, every finished call parses and conforms."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from app.core.errors import BadRequestError, UnsupportedParameterError
from app.core.jobs import Constraint
from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.core.parsing.tool_calls.choosing import CALL_FORMS, THINK
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.http.answers.chat_parts import message_of
from app.models.grammars.call_grammars import NOTATIONS
from app.models.grammars.constraints import Constraints
from tests.tiny_models import SPECIAL, tiny_tokenizer
from tests.unit.models.json_schemas.sampled import constraints, judge, write

THINKING = {"opens": ["<think>"], "closes": ["</think>"]}


@pytest.fixture(scope="module")
def owner():
    made = constraints()
    yield made
    made.close()


def random_schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """A bounded schema, so that a call can finish."""
    kinds = ["integer", "enum", "boolean", "string", "null"] + ["array", "object", "either"] * (depth > 0)
    match rng.choice(kinds):
        case "integer":
            return {"type": "integer", "minimum": rng.randint(-9, 0), "maximum": rng.randint(1, 99)}
        case "enum":
            return {"enum": rng.sample(["red", "g{r}een", 'b"lue', 7, None, "</tool_call>"], 3)}
        case "string":
            return {"type": "string", "maxLength": rng.randint(1, 6)}
        case "array":
            return {"type": "array", "items": random_schema(rng, depth - 1), "maxItems": 2}
        case "object":
            return random_object(rng, depth - 1)
        case "either":
            return {"anyOf": [random_schema(rng, depth - 1), {"type": "boolean"}]}
        case kind:
            return {"type": kind}


def random_object(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    names = rng.sample(["city", "days", "note", "tags"], rng.randint(0, 3))
    properties = {name: random_schema(rng, depth) for name in names}
    required = rng.sample(names, rng.randint(0, len(names)))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def rules_of(notation: str, schemas: dict[str, Any], **fields: Any) -> Constraint:
    rules = {"notation": notation, "schemas": schemas, "is_required": True, "is_parallel": True, **fields}
    return Constraint("tool_calls", json.dumps(rules))


def form_of(notation: str, schemas: dict[str, Any]) -> AnswerForm:
    name = notation if notation in CALL_FORMS else notation.split("_v")[0]
    tools = [{"type": "function", "function": {"name": one, "parameters": given}} for one, given in schemas.items()]
    return AnswerForm(CALL_FORMS[name], THINK, KnownTools(tools))


def check(text: str, notation: str, schemas: dict[str, Any]) -> list[str]:
    """The names of the calls in ``text``, each of which conforms, and nothing of which is content."""
    message = message_of(text, form_of(notation, schemas))
    for call in message.get("tool_calls", []):
        judge(call["function"]["arguments"], schemas[call["function"]["name"]])
    assert not any(sign in (message["content"] or "") for sign in ("<tool_call>", "[TOOL_CALLS]", "<|tool_call|>"))
    return [call["function"]["name"] for call in message.get("tool_calls", [])]


def schemas_of(rng: random.Random) -> dict[str, Any]:
    return {"get_weather": random_object(rng), "search": random_object(rng, 1)}


def check_random_schemas(owner: Constraints, notation: str, num_schemas: int) -> None:
    num_written = 0
    for seed in range(num_schemas):
        schemas = schemas_of(random.Random(seed))
        grammar = owner.compiled(rules_of(notation, schemas))
        for again in range(2):
            if (text := write(grammar, 100 * seed + again)) is not None:
                num_written += 1
                assert check(text, notation, schemas), f"no call in {text!r}"
    assert num_written > num_schemas // 2


@pytest.mark.parametrize("notation", NOTATIONS)
def test_required_calls_of_random_schemas_conform(owner, notation):
    check_random_schemas(owner, notation, 6)


@pytest.mark.chaos
@pytest.mark.parametrize("notation", NOTATIONS)
def test_required_calls_of_very_many_random_schemas_conform(owner, notation):
    check_random_schemas(owner, notation, 150)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_without_parallel_calls_there_is_one(owner, notation):
    schemas = schemas_of(random.Random(5))
    grammar = owner.compiled(rules_of(notation, schemas, is_parallel=False))
    texts = [text for seed in range(4) if (text := write(grammar, seed)) is not None]
    assert texts and all(len(check(text, notation, schemas)) == 1 for text in texts)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_the_choice_of_a_model_leaves_text_free_and_holds_its_calls(owner, notation):
    schemas = schemas_of(random.Random(7))
    grammar = owner.compiled(rules_of(notation, schemas, is_required=False))
    for seed in range(4):
        if (text := write(grammar, seed)) is not None:
            check(text, notation, schemas)
    for text in ("", "Hello {you}, 1 < 2."):
        assert accepts(owner, grammar, text)


def accepts(owner: Constraints, grammar: Any, text: str, tokenizer: Any = None) -> bool:
    tokenizer = tokenizer or owner._tokenizer
    matcher = grammar.matcher([tokenizer.eos_token_id])
    for token in [*tokenizer.encode(text), tokenizer.eos_token_id]:
        allowed = matcher._allowed(len(tokenizer))
        if allowed is None or not allowed[token]:
            return False
        matcher.accept(token)
    return True


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def test_text_before_a_call_is_free_and_the_call_is_not(owner):
    schemas = {"f": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
    grammar = owner.compiled(rules_of("hermes", schemas, is_required=False))
    assert accepts(owner, grammar, "I look < there.\n" + hermes("f", '{"a": 1}'))
    assert not accepts(owner, grammar, "I look.\n" + hermes("f", '{"a": "1"}'))
    assert not accepts(owner, grammar, "I look.\n" + hermes("g", "{}"))


def test_reasoning_stays_free_before_required_calls(owner):
    schemas = {"f": {"type": "object", "properties": {}, "additionalProperties": False}}
    call = hermes("f", "{}")
    closed = owner.compiled(rules_of("hermes", schemas, **THINKING))
    assert accepts(owner, closed, call) and accepts(owner, closed, "<think>\nNo <tool_call> yet\n</think>\n\n" + call)
    assert not accepts(owner, closed, "hm" + call)
    opened = owner.compiled(rules_of("hermes", schemas, **THINKING, is_thinking=True))
    assert accepts(owner, opened, "hm</think>" + call) and not accepts(owner, opened, call)


def test_signs_that_are_special_tokens_are_matched_as_tokens():
    signs = ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"]
    tokenizer = tiny_tokenizer(special=[*SPECIAL, *signs])
    owner = Constraints(tokenizer, len(tokenizer), frozenset({tokenizer.eos_token_id}))
    schemas = {"f": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
    try:
        fields = {"opens": ["[THINK]"], "closes": ["[/THINK]"], "is_required": False}
        grammar = owner.compiled(rules_of("mistral_v11", schemas, **fields))
        call = '[TOOL_CALLS]f[ARGS]{"a": 1}'
        for text in ("", "hm", call, f"hm{call}{call}", f"[THINK]x[/THINK]\n{call}"):
            assert accepts(owner, grammar, text), text
        for text in ("hm[TOOL_CALLS]", f"hm{call}"[:-2], '[TOOL_CALLS]f[ARGS]{"a": null}', "[THINK]x", "a[ARGS]"):
            assert not accepts(owner, grammar, text), text
    finally:
        owner.close()


def test_a_schema_that_cannot_be_followed_is_refused_with_its_function_and_place(owner):
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a)\\1"}}}
    with pytest.raises(BadRequestError) as refused:
        owner.compiled(rules_of("hermes", {"f": schema}))
    assert refused.value.param == "tools" and "f: " in refused.value.message and "properties/a" in refused.value.message
    with pytest.raises(UnsupportedParameterError):
        owner.compiled(rules_of("hermes", {"f": {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}}))


def test_masks_are_made_for_every_token_of_the_vocabulary(owner):
    matcher = owner.compiled(rules_of("hermes", {"f": {}})).matcher([0])
    allowed = matcher._allowed(len(owner._tokenizer) + 8)
    assert np.flatnonzero(allowed).size and not allowed[-8:].any()
