"""Calls that a grammar holds to their schemas: whatever tokens are drawn, every finished call parses and conforms."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest

from app.core.errors import BadRequestError, UnsupportedParameterError
from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.core.parsing.tool_calls.choosing import CALL_FORMS, THINK
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.work.sampling_params import Constraint
from app.http.answers.chat_parts import message_of
from app.models.grammars.calls.call_grammars import CallRules, call_grammar
from app.models.grammars.calls.notation_table import NOTATIONS
from app.models.grammars.constraints import Constraints
from tests.thinned import few_of
from tests.tiny_models import SPECIAL, tiny_tokenizer
from tests.unit.models.call_notations import each_notation
from tests.unit.models.json_schemas.sampled import allowed_by, constraints, judge, write

THINKING = {"opens": ["<think>"], "closes": ["</think>"]}


@pytest.fixture(scope="module")
def owner():
    made = constraints()
    yield made
    made.close()


def random_schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """A bounded schema, so that a call can finish."""
    kinds = ["integer", "enum", "boolean", "string", "null", "pattern", "date", "mixed", "steps", "one"]
    kinds += ["array", "object", "either", "pair"] * (depth > 0)
    match rng.choice(kinds):
        case "integer":
            return {"type": "integer", "minimum": rng.randint(-9, 0), "maximum": rng.randint(1, 99)}
        case "enum":
            return {"enum": rng.sample(["red", "g{r}een", 'b"lue', 7, None, "</tool_call>"], 3)}
        case "string":
            return {"type": "string", "maxLength": rng.randint(1, 6)}
        case "pattern":
            patterns = ["^[a-c]{1,3}$", "x", "^(ab|c)+", "[0-9]$", "^a/b$|^\\d\\d$", "^[^\"'/<]{2}$"]
            return {"type": "string", "pattern": rng.choice(patterns), "maxLength": 12}
        case "date":
            return {"type": "string", "format": "date"}
        case "mixed":
            others = rng.sample(["integer", "null", "boolean", "number", "array"], rng.randint(1, 3))
            return {"type": ["string", *others], "maxLength": 4, "maxItems": 1}
        case "steps":
            return {"type": "number", "multipleOf": 0.5, "minimum": 0, "exclusiveMaximum": 9}
        case "one":
            return {
                "const": rng.choice(["null", "7", "a\nb", "</arg_value>x", "<escape>", True, {"a": ["</parameter>"]}])
            }
        case "pair":
            return {"type": "array", "prefixItems": [random_schema(rng, 0), random_schema(rng, 0)], "maxItems": 3}
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


FORMS = {"glm_4_5": "glm", "glm_4_7": "glm", "function_gemma": "gemma", "phi_functools": "phi"}


def form_of(notation: str, schemas: dict[str, Any]) -> AnswerForm:
    name = FORMS.get(notation, notation.split("_v")[0])
    tools = [{"type": "function", "function": {"name": one, "parameters": given}} for one, given in schemas.items()]
    return AnswerForm(CALL_FORMS[name], THINK, KnownTools(tools))


def check(text: str, notation: str, schemas: dict[str, Any]) -> list[str]:
    """The names of the calls in ``text``, each of which conforms, and nothing of which is content."""
    message = message_of(text, form_of(notation, schemas))
    for call in message.get("tool_calls", []):
        judge(call["function"]["arguments"], schemas[call["function"]["name"]])
    assert not any(sign in (message["content"] or "") for sign in NOTATIONS[notation].signs)
    return [call["function"]["name"] for call in message.get("tool_calls", [])]


def schemas_of(rng: random.Random) -> dict[str, Any]:
    return {"get_weather": random_object(rng), "search": random_object(rng, 1)}


def check_random_schemas(owner: Constraints, notation: str, num_schemas: int) -> None:
    num_written, num_asked = 0, 0
    for seed in range(num_schemas):
        schemas = schemas_of(random.Random(seed))
        try:
            grammar = owner.compiled(rules_of(notation, schemas))
        except UnsupportedParameterError as error:
            # A constant that holds the sign which ends it.
            assert "/properties/" in error.message and notation not in ("hermes", "llama_python", "harmony")
            continue
        for again in range(2):
            num_asked += 1
            if (text := write(grammar, 100 * seed + again, tokenizer=owner._tokenizer)) is not None:
                num_written += 1
                assert check(text, notation, schemas), f"no call in {text!r}"
    assert num_written > num_asked // 2, num_written


@pytest.mark.parametrize("notation", few_of(each_notation(NOTATIONS), 8))
def test_required_calls_of_random_schemas_conform(owner, notation):
    check_random_schemas(owner, notation, 4)


@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_special_token_that_a_grammar_asks_for_is_shown_to_the_reader(notation):
    signs = sorted(frozenset[str]().union(*(form.signs for form in CALL_FORMS.values())) - {"[", "{"})
    schema = {"properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "object"}}}
    rules = CallRules(notation, {"f": schema}, is_required=True, is_parallel=True)
    grammar = call_grammar(rules, {sign: at for at, sign in enumerate(signs)}).text
    asked = {signs[int(at)] for at in re.findall(r"<\[(\d+)\]>", grammar)}
    assert asked <= form_of(notation, {}).calls.signs


@pytest.mark.chaos
@pytest.mark.parametrize("notation", NOTATIONS)
def test_required_calls_of_very_many_random_schemas_conform(owner, notation):
    check_random_schemas(owner, notation, 150)


@pytest.mark.parametrize("notation", few_of(each_notation(NOTATIONS), 8))
def test_calls_whose_signs_are_special_tokens_conform(notation):
    signs = sorted(form_of(notation, {}).calls.signs - {"[", "{"})
    tokenizer = tiny_tokenizer(special=[*SPECIAL, *signs])
    owner = Constraints(tokenizer, len(tokenizer), frozenset({tokenizer.eos_token_id}))
    try:
        check_random_schemas(owner, notation, 3)
    finally:
        owner.close()


@pytest.mark.parametrize("notation", NOTATIONS)
def test_without_parallel_calls_there_is_one(owner, notation):
    schemas = schemas_of(random.Random(5))
    grammar = owner.compiled(rules_of(notation, schemas, is_parallel=False))
    texts = [text for seed in range(4) if (text := write(grammar, seed)) is not None]
    assert texts and all(len(check(text, notation, schemas)) == 1 for text in texts)


@pytest.mark.parametrize("notation", each_notation(NOTATIONS))
def test_the_choice_of_a_model_leaves_text_free_and_holds_its_calls(owner, notation):
    schemas = schemas_of(random.Random(7))
    grammar = owner.compiled(rules_of(notation, schemas, is_required=False))
    for seed in range(4):
        if (text := write(grammar, seed)) is not None:
            check(text, notation, schemas)
    before = "<|channel|>final<|message|>" if notation == "harmony" else ""
    for text in ("", "Hello {you}, 1 < 2."):
        assert accepts(owner, grammar, before + text)
    for sign in NOTATIONS[notation].signs:
        assert not accepts(owner, grammar, f"{before}Hello {sign}")


def accepts(owner: Constraints, grammar: Any, text: str, tokenizer: Any = None) -> bool:
    tokenizer = tokenizer or owner._tokenizer
    matcher = grammar.matcher([tokenizer.eos_token_id])
    for token in [*tokenizer.encode(text), tokenizer.eos_token_id]:
        allowed = allowed_by(matcher, len(tokenizer))
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


def test_a_sign_that_is_an_added_token_is_that_token_though_it_is_not_special():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool_call>", "</tool_call>", "<think>", "</think>"])
    owner = Constraints(tokenizer, len(tokenizer), frozenset({tokenizer.eos_token_id}))
    schemas = {"f": {"type": "object", "properties": {}, "additionalProperties": False}}
    call = hermes("f", "{}")
    assert tokenizer.convert_tokens_to_ids("<tool_call>") in tokenizer.encode(call)
    try:
        forced = owner.compiled(rules_of("hermes", schemas, **THINKING))
        assert accepts(owner, forced, call) and accepts(owner, forced, f"<think>\nhm</think>\n\n{call}")
        free = owner.compiled(rules_of("hermes", schemas, is_required=False))
        assert accepts(owner, free, f"Let me look.\n{call}") and not accepts(owner, free, "Look: <tool_call>")
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
    allowed = allowed_by(matcher, len(owner._tokenizer) + 8)
    assert np.flatnonzero(allowed).size and not allowed[-8:].any()


def refused(owner: Constraints, notation: str, schema: dict[str, Any], name: str = "f") -> str:
    with pytest.raises(UnsupportedParameterError) as error:
        owner.compiled(rules_of(notation, {name: schema}))
    assert error.value.param == "tools"
    return error.value.message


def test_what_a_notation_cannot_hold_is_refused_with_its_place(owner):
    quoted = {"properties": {"a": {"type": "object", "properties": {"b:c": {}}}}}
    assert "f: #/properties/a/properties/b:c" in refused(owner, "gemma", quoted)
    assert "f: #/properties/a-b" in refused(owner, "llama_python", {"properties": {"a-b": {}}})
    assert "f: #/properties/a>b" in refused(owner, "qwen_coder", {"properties": {"a>b": {}}})
    for notation, pattern in [("qwen_coder", "^</parameter>$"), ("lfm2", "^\n\"'$"), ("glm_4_5", "</arg_value>")]:
        schema = {"properties": {"a": {"type": "array", "items": False}, "b": {"type": "string", "pattern": pattern}}}
        assert "f: #/properties/b" in refused(owner, notation, schema)
    assert "f: #/minProperties" in refused(owner, "glm_4_7", {"minProperties": 2})
    assert "f: #/properties/a: assertions" in refused(
        owner, "gemma", {"properties": {"a": {"type": "string", "pattern": "(a$|b)c"}}}
    )
    assert "get-it" in refused(owner, "lfm2", {}, "get-it")


def test_strings_stand_bare_where_the_notation_has_them_so(owner):
    schemas = {
        "f": {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": ["string", "null", "integer"]}},
            "required": ["a", "b"],
        }
    }
    grammar = owner.compiled(rules_of("qwen_coder", schemas))

    def text(a: str, b: str) -> str:
        parameters = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in (("a", a), ("b", b)))
        return f"<tool_call>\n<function=f>\n{parameters}</function>\n</tool_call>"

    for a, b in [("", "null"), ('He said "no"\n\n{x', "7"), ("</param> <parameter=b>", "7 days"), ("1", "")]:
        assert accepts(owner, grammar, text(a, b)), (a, b)
        [call] = message_of(text(a, b), form_of("qwen_coder", schemas))["tool_calls"]
        arguments = json.loads(call["function"]["arguments"])
        assert arguments == {"a": a, "b": {"null": None, "7": 7}.get(b, b)}


def test_members_keep_the_schemas_order_and_its_counts(owner):
    properties = {name: {"type": "boolean"} for name in "abcd"}
    schema = {"properties": properties, "required": ["c"], "minProperties": 2, "maxProperties": 3}
    grammar = owner.compiled(rules_of("lfm2", {"f": schema}, is_parallel=False))

    def is_accepted(names: str) -> bool:
        arguments = ", ".join(f"{name}=True" for name in names)
        return accepts(owner, grammar, f"<|tool_call_start|>[f({arguments})]<|tool_call_end|>")

    assert all(map(is_accepted, ["ac", "cd", "abc", "bcd"]))
    assert not any(map(is_accepted, ["", "c", "ab", "ca", "abcd"]))


def test_gemmas_members_stand_in_the_alphabets_order_as_its_template_writes_them(owner):
    schemas = {"f": {"properties": {"b": {"type": "string"}, "a": {"enum": [1, None]}}, "required": ["b", "a"]}}
    grammar = owner.compiled(rules_of("gemma", schemas))
    assert accepts(owner, grammar, '<|tool_call>call:f{a:null,b:<|"|>x "y"<|"|>}<tool_call|>')
    assert not accepts(owner, grammar, '<|tool_call>call:f{b:<|"|>x<|"|>,a:1}<tool_call|>')


def test_several_names_of_the_models_own_are_not_asked_for_where_nothing_keeps_them_apart(owner):
    schemas = {"f": {"properties": {"a": {"type": "object", "minProperties": 2}}, "required": ["a"]}}
    owner.compiled(rules_of("hermes", schemas))
    with pytest.raises(UnsupportedParameterError) as refused:
        owner.compiled(rules_of("hermes", schemas, is_required=False))
    assert "f: #/properties/a/minProperties" in refused.value.message
    fewer = {"f": {"properties": {"a": {"type": "object", "minProperties": 1}}}}
    owner.compiled(rules_of("hermes", fewer, is_required=False))
