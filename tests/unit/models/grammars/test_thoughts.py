"""Reasoning stays free in front of what a grammar holds: schemas, patterns, choices, grammars."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.core.work.sampling_params import Constraint, ReasoningSpan
from app.models.grammars.constraints import Constraints
from app.models.grammars.thought_skipping import ThoughtSkipper
from tests.tiny_models import SPECIAL, tiny_tokenizer
from tests.unit.models.grammars.test_call_grammars import accepts
from tests.unit.models.json_schemas.sampled import allowed_by, constraints, write

THINK = ReasoningSpan(("<think>",), ("</think>",))
OPENED = replace(THINK, is_open=True)
HARMONY = ReasoningSpan(
    ("<|channel|>analysis<|message|>",), ("<|end|><|start|>assistant",), answer="<|channel|>final<|message|>"
)
SIGNS = ["<think>", "</think>", "<|channel|>", "<|message|>", "<|end|>", "<|start|>"]
OPEN_OBJECT = {"type": "object", "additionalProperties": {"type": "integer", "maximum": 9, "minimum": 0}}
ANSWERS = [
    (Constraint("json_schema", '{"enum": [1, "a/b"]}'), ["1", '"a/b"'], ["2", ""]),
    (Constraint("regex", "[ab]/[0-9]{2}", "structured_outputs"), ["a/12"], ["a/1", "c/12"]),
    (Constraint("lark", 'start: "yes" | NO\nNO: /no+/\n', "structured_outputs"), ["yes", "nooo"], ["maybe"]),
]


@pytest.fixture(scope="module", params=["text", "special"])
def owner(request):
    if request.param == "text":
        made = constraints()
    else:
        tokenizer = tiny_tokenizer(special=[*SPECIAL, *SIGNS])
        made = Constraints(tokenizer, len(tokenizer), frozenset({tokenizer.eos_token_id}))
    yield made
    made.close()


@pytest.mark.parametrize(("constraint", "good", "bad"), ANSWERS, ids=["schema", "regex", "lark"])
def test_the_answer_behind_the_reasoning_is_held_and_the_reasoning_is_not(owner, constraint, good, bad):
    grammar = owner.compiled(replace(constraint, reasoning=THINK))
    opened = owner.compiled(replace(constraint, reasoning=OPENED))
    for text in good:
        assert accepts(owner, grammar, text)
        assert accepts(owner, grammar, f'<think>\nI {{think}} "so"\n</think>\n\n{text}')
        assert accepts(owner, opened, f"hm</think>{text}") and not accepts(owner, opened, text)
    for text in bad:
        assert not accepts(owner, grammar, f"<think>x</think>{text}") and not accepts(owner, grammar, text)
    assert not accepts(owner, grammar, "<think>x") and not accepts(owner, grammar, "<think>x</think>")


def test_harmonys_answer_stands_in_its_channel(owner):
    grammar = owner.compiled(replace(ANSWERS[0][0], reasoning=HARMONY))
    thought = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    for before in ("", thought, thought * 2):
        assert accepts(owner, grammar, f"{before}<|channel|>final<|message|>1")
        assert not accepts(owner, grammar, f"{before}<|channel|>final<|message|>2")
    assert not accepts(owner, grammar, "1")


def test_a_sign_that_ends_reasoning_cannot_be_spelled_out_in_it():
    tokenizer = tiny_tokenizer(special=[*SPECIAL, *SIGNS])
    owner = Constraints(tokenizer, len(tokenizer), frozenset({tokenizer.eos_token_id}))
    matcher = owner.compiled(replace(ANSWERS[0][0], reasoning=OPENED)).matcher([tokenizer.eos_token_id])
    try:
        [last] = tokenizer.encode(">")
        for token in [token for sign in "hm</think" for token in tokenizer.encode(sign)]:
            allowed_by(matcher, len(tokenizer))
            matcher.accept(token)
        allowed = allowed_by(matcher, len(tokenizer))
        assert not allowed[last] and allowed[tokenizer.convert_tokens_to_ids("</think>")]
    finally:
        owner.close()


def test_names_are_kept_apart_behind_reasoning_that_looks_like_an_object(owner):
    schema = Constraint("json_schema", json.dumps(OPEN_OBJECT), reasoning=OPENED)
    matcher_text = '{"a": 1, "b": 2}</think>{"a": 1, "'
    tokenizer = owner._tokenizer
    matcher = owner.compiled(schema).matcher([tokenizer.eos_token_id])
    for token in tokenizer.encode(matcher_text):
        allowed = allowed_by(matcher, len(tokenizer))
        assert allowed[token]
        matcher.accept(token)
    [a], [b], [quote] = (tokenizer.encode(sign) for sign in 'ab"')
    assert allowed_by(matcher, len(tokenizer))[a]
    matcher.accept(a)
    assert not allowed_by(matcher, len(tokenizer))[quote]
    matcher.accept(b)
    assert allowed_by(matcher, len(tokenizer))[quote]


def test_random_answers_end_in_what_is_asked_for(owner):
    grammar = owner.compiled(replace(ANSWERS[0][0], reasoning=THINK))
    texts = [write(grammar, seed, tokenizer=owner._tokenizer) for seed in range(6)]
    assert any(texts)
    for text in filter(None, texts):
        assert text.endswith(("1", '"a/b"'))


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("span", "text", "answer"),
    [
        (None, '{"a"', '{"a"'),
        (THINK, ' {"a"', '{"a"'),
        (THINK, '<think>{"</think>\n {"a"', '{"a"'),
        (OPENED, '{"</think>[', "["),
        (HARMONY, "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>{", "{"),
    ],
)
def test_what_stands_behind_the_reasoning_is_found_wherever_the_text_is_cut(span, text, answer, size):
    skipper, data = ThoughtSkipper(span), text.encode()
    assert b"".join(skipper.push(data[at : at + size]) for at in range(0, len(data), size)) == answer.encode()
