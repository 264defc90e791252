"""Chat templates are strangers' programs: whatever they do ends in time, and with their own message."""

from __future__ import annotations

import time

import pytest

from app.core.errors import InvalidParameterError, RequestTimeoutError
from app.core.patience import patient_until
from app.models.tokens.rendering import Renderer
from tests.tiny_models import CHATML, tiny_tokenizer

MESSAGES = [{"role": "user", "content": "Hi"}]
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def renderer():
    renderer = Renderer(render_s=3.0)
    yield renderer
    renderer.close()


def test_the_text_is_what_transformers_makes_of_it(renderer):
    tokenizer = tiny_tokenizer(CHATML)
    expected = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert renderer.render(CHATML, MESSAGES, tools=None, add_generation_prompt=True) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('Only users may speak.') }}", "Only users may speak."),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 'a' + [] }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ messages[0].nothing.at.all }}", "has no attribute"),
        ("{{", "unexpected"),
        ("{{ 'a' * 3000000000 }}", "too much memory"),
        ("{{ '%3000000000d' % 1 }}", "too much memory"),
        ("{{ ''.ljust(20000000) }}", "too much text"),
        ("{{ '\\ud83d' }}", "surrogates not allowed"),
        ("{{ raise_exception('half \\ud83d') }}", r"half \?"),
    ],
)
def test_what_a_template_does_wrong_is_the_requests_fault_with_its_message(renderer, template, message):
    with pytest.raises(InvalidParameterError, match=message):
        renderer.render(template, MESSAGES)
    assert renderer.render("{{ messages[0].content }}", MESSAGES) == "Hi"


def test_a_template_without_an_end_is_killed_and_the_next_one_is_rendered():
    renderer = Renderer(render_s=0.5)
    with pytest.raises(InvalidParameterError, match="takes longer than"):
        renderer.render(LOOPS, MESSAGES)
    renderer._render_s = 60.0
    assert renderer.render("{{ messages[0].content }}", MESSAGES) == "Hi"
    renderer.close()


def test_waiting_for_a_template_is_part_of_the_requests_time(renderer):
    renderer.render("", MESSAGES)
    with patient_until(time.monotonic() + 0.2), pytest.raises(RequestTimeoutError):
        renderer.render(LOOPS, MESSAGES)
    with renderer._lock, patient_until(time.monotonic() + 0.1), pytest.raises(RequestTimeoutError):
        renderer.render("", MESSAGES)
