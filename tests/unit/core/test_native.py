"""What a native library throws past every ``except Exception`` stays with the request it was for."""

from __future__ import annotations

import llguidance
import pytest

from app.core.errors import InvalidParameterError
from app.core.system.native import guarded


def test_a_real_panic_of_a_rust_library_becomes_a_refusal(capfd):
    schema = '{"minLength": "a' + "姓名" * 40 + '"}'
    grammar = llguidance.LLMatcher.grammar_from_json_schema(schema)
    with pytest.raises(InvalidParameterError), guarded():
        if llguidance.LLMatcher.validate_grammar(grammar):
            raise InvalidParameterError("a version that does not panic")


class ThreadDeath(BaseException):
    """Nobody knows it."""


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError, ThreadDeath])
def test_whatever_is_no_panic_passes(kind):
    with pytest.raises(kind), guarded():
        raise kind
