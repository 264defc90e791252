"""Writes what a grammar allows with a tiny vocabulary and random tokens, and judges it by other means."""

from __future__ import annotations

import datetime
import functools
import json
import math
import random
import re
from decimal import Decimal, InvalidOperation
from typing import Any

import jsonschema
import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from app.core.work.sampling_params import Constraint
from app.models.grammars.constraints import Constraints
from app.models.grammars.running_grammar import Grammar, Matcher
from tests.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
END = TOKENIZER.eos_token_id
CHECKER = jsonschema.FormatChecker(formats=[])


@functools.cache
def closers(tokenizer: PreTrainedTokenizerFast, *, of_lines: bool) -> frozenset[int]:
    """Tokens that bring a value to its end; with those of lines, which in some notations lead on to a further call."""
    signs = set('"}], 0123456789-:TZ.' + "\n" * of_lines)
    return frozenset(token for token in range(len(tokenizer)) if set(tokenizer.decode([token])) <= signs)


def constraints() -> Constraints:
    return Constraints(TOKENIZER, len(TOKENIZER), frozenset({END}))


def compiled(owner: Constraints, schema: Any) -> Grammar:
    return owner.compiled(Constraint("json_schema", json.dumps(schema)))


def allowed_by(matcher: Matcher, vocab_size: int) -> NDArray[np.bool_] | None:
    """Whether each token may come next; None where the grammar has failed."""
    bits = matcher.allowed((vocab_size + 7) // 8)
    if bits is None:
        return None
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=vocab_size, bitorder="little").view(np.bool_)


def write(
    grammar: Grammar, seed: int, max_tokens: int = 600, tokenizer: PreTrainedTokenizerFast = TOKENIZER
) -> str | None:
    """A text that came to its end, of random tokens with a liking for ends; None where it did not end in time."""
    rng = random.Random(seed)
    end = tokenizer.eos_token_id
    matcher = grammar.matcher([end])
    tokens: list[int] = []
    for _ in range(max_tokens):
        allowed = allowed_by(matcher, len(tokenizer))
        assert allowed is not None, f"failed after {tokenizer.decode(tokens)!r}"
        ids = np.flatnonzero(allowed).tolist()
        assert ids, f"nothing may follow {tokenizer.decode(tokens)!r}"
        if end in ids and (len(ids) == 1 or rng.random() < 0.3):
            return tokenizer.decode(tokens)
        ids = [token for token in ids if token != end]
        closing = closers(tokenizer, of_lines=len(tokens) < max_tokens // 2)
        liked = [token for token in ids if token in closing]
        is_liked = rng.random() < 0.1 + len(tokens) / 100
        token = rng.choice(liked if liked and is_liked else ids)
        tokens.append(token)
        matcher.accept(token)
    return None


def judge(text: str, schema: Any) -> None:
    """Raise unless ``text`` is JSON without repeated names that matches ``schema``."""
    value = json.loads(text, object_pairs_hook=_apart, parse_float=_number)
    validator = _Validator(_translated(schema, schema), format_checker=CHECKER)
    errors = list(validator.iter_errors(value))
    assert not errors, f"{text}: {errors[0].message}"


def _number(text: str) -> Decimal | float:
    """Exact, where the exponent is one that decimals have."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return float(text)


def _apart(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), f"repeated names: {names}"
    return dict(pairs)


def _is_multiple(_validator: Any, step: float, value: Any, _schema: Any) -> Any:
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and Decimal(value) % Decimal(str(step)):
        yield jsonschema.ValidationError(f"{value} is no multiple of {step}")


def _is_number(_checker: Any, value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _is_integer(_checker: Any, value: Any) -> bool:
    """Without making a whole number of 1e999999."""
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    # What is too large for a float was read as infinite, and is whole.
    return _is_number(_checker, value) and (math.isinf(value) or value == int(value))


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"multipleOf": _is_multiple},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)


def _translated(schema: Any, root: Any) -> Any:
    """Older drafts and OpenAPI 3.0 in the words of draft 2020-12."""
    if isinstance(schema, list):
        return [_translated(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        name: part if name in ("const", "enum", "default", "examples") else _translated(part, root)
        for name, part in schema.items()
    }
    if made.get("nullable") is True and "type" in made:
        types = made["type"] if isinstance(made["type"], list) else [made["type"]]
        made["type"] = [*types, "null"]
    if isinstance(made.get("items"), list):
        made["prefixItems"] = made.pop("items")
        made["items"] = made.pop("additionalItems", True)
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(made.get(exclusive), bool) and made.pop(exclusive):
            made[exclusive] = made.pop(bound)
    return made


def _check(name: str, raises: type[Exception]) -> Any:
    return CHECKER.checks(name, raises=raises)


@_check("date", ValueError)
def _is_date(value: object) -> bool:
    return not isinstance(value, str) or bool(
        re.fullmatch(r"\d{4}-\d\d-\d\d", value) and datetime.date.fromisoformat(value)
    )


@_check("time", ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.time.fromisoformat(re.sub(r"\.\d+", "", value)).tzinfo)


@_check("date-time", ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", value)).tzinfo)


for _name in ("ipv4", "ipv6", "uuid", "email"):
    _checker = jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers[_name]
    CHECKER.checkers[_name] = _checker


@_check("duration", ValueError)
def _is_duration(value: object) -> bool:
    form = r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)"
    return not isinstance(value, str) or re.fullmatch(form, value) is not None


@_check("hostname", ValueError)
def _is_hostname(value: object) -> bool:
    label = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return not isinstance(value, str) or (
        len(value) <= 253 and re.fullmatch(rf"{label}(\.{label})*", value) is not None
    )


@_check("uri", ValueError)
def _is_uri(value: object) -> bool:
    from urllib.parse import urlsplit

    return not isinstance(value, str) or bool(urlsplit(value).scheme and urlsplit(value).port is not ...)
