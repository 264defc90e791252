"""What a native library throws past every ``except Exception`` stays with the request it was for."""

from __future__ import annotations

import llguidance
import pytest

from app.core.errors import InvalidParameterError
from app.core.native import guarded


class PanicError(BaseException):
    """As pyo3's PanicException: no ``Exception``."""


def test_a_panic_becomes_a_refusal():
    with pytest.raises(InvalidParameterError), guarded():
        raise PanicError("byte index 100 is not a char boundary")


def test_a_real_panic_of_a_rust_library_becomes_a_refusal(capfd):
    schema = '{"minLength": "a' + "姓名" * 40 + '"}'
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema)
    with pytest.raises(InvalidParameterError), guarded():
        if llguidance.LLMatcher.validate_grammar(grammar):
            raise InvalidParameterError("a version that does not panic")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_exits_and_exceptions_pass(kind):
    with pytest.raises(kind), guarded():
        raise kind
