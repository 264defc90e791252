"""What the log writes of failures, in both formats: no caller's text, no escape sequences, no local variables."""

from __future__ import annotations

import json
import logging
import os
import pty
from pathlib import Path

import jinja2
import pytest
import torch
from pydantic import BaseModel, ValidationError

from app.core.logs import tracebacks
from app.core.logs.logging import configure_logging, get_logger, is_console
from app.core.logs.tracebacks import HIDDEN, OF_TENSORS, for_callers, traceback_text

FORMATS = ("json", "console")
PRIVATE = "PRIVATE"


@pytest.fixture(autouse=True)
def kept_logging():
    """The logging of the other tests, put back; what they did in this thread is over."""
    tracebacks._shown.set(None)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


class Question(BaseModel):
    count: int


def by_template(text):
    jinja2.Environment().from_string("{{ 1 // 0 if text }}").render(text=text)


def by_raised_template(text):
    def fail(message):
        raise jinja2.TemplateError(message)

    jinja2.Environment().from_string("{{ fail(text) }}").render(text=text, fail=fail)


def by_schema(text):
    Question(count=text)


def by_key(text):
    {}[text]


def by_number(text):
    int(text)


def by_syntax(text):
    compile(f"{text} = = 1", "<text>", "exec")


def by_runtime(text):
    raise RuntimeError(f"cannot handle {text}")


def by_chain(text):
    try:
        by_key(text)
    except KeyError as error:
        raise ValueError(f"no {text}") from error


def by_context(text):
    try:
        by_key(text)
    except KeyError:
        by_number(text)


def by_group(text):
    raise ExceptionGroup(text, [KeyError(text), ValueError(text)])


def by_note(text):
    error = ValueError(text)
    error.add_note(text)
    raise error


def by_encoding(text):
    f"{text}\ud83d".encode()


PATHS = [value for name, value in sorted(globals().items()) if name.startswith("by_")]


def failure_of(path, text):
    try:
        path(text)
    except Exception as error:
        return error
    raise AssertionError("it fails")


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("path", PATHS)
def test_a_traceback_does_not_quote_a_caller(capsys, log_format, path):
    configure_logging(log_format)
    failure = failure_of(path, PRIVATE)
    with for_callers():
        get_logger("http").error("request_failed", request_id="r1", exc_info=failure)
        logging.getLogger("gunicorn.error").error("Error handling request", exc_info=failure)
    shown = capsys.readouterr().err
    assert PRIVATE not in shown
    assert shown.count(path.__name__) >= 2, "where it failed is told"
    assert type(failure).__name__ in shown


@pytest.mark.parametrize("log_format", FORMATS)
def test_messages_are_written_where_prompts_are(capsys, log_format):
    configure_logging(log_format, log_prompts=True)
    with for_callers():
        get_logger("http").error("request_failed", exc_info=failure_of(by_number, PRIVATE))
    assert PRIVATE in capsys.readouterr().err


@pytest.mark.parametrize("log_format", FORMATS)
def test_outside_of_requests_messages_are_told_without_local_variables(capsys, log_format):
    configure_logging(log_format)
    local = "".join(("PRI", "VATE"))
    try:
        raise ValueError("the folder is broken")
    except ValueError:
        get_logger("models").exception("load_raised", length=len(local))
    shown = capsys.readouterr().err
    assert "ValueError: the folder is broken" in shown
    assert PRIVATE not in shown


def test_what_the_system_and_torch_say_is_told():
    with for_callers():
        assert "No space left" in traceback_text(OSError(28, "No space left on device"))
        assert "out of memory" in traceback_text(torch.OutOfMemoryError("CUDA out of memory"))
    with for_callers(OF_TENSORS), pytest.raises(RuntimeError) as caught:
        torch.ones(2, 3) @ torch.ones(2, 3)
    with for_callers(OF_TENSORS):
        assert "shapes cannot be multiplied" in traceback_text(caught.value)
    with for_callers():
        assert HIDDEN in traceback_text(caught.value)


def test_a_cycle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__context__, second.__context__ = second, first
    with for_callers():
        assert traceback_text(first).count("ValueError") == 2


@pytest.mark.parametrize("log_format", FORMATS)
def test_escape_sequences_do_not_reach_the_reader(capsys, log_format):
    configure_logging(log_format)
    get_logger("http").info("request\x1b[2J", route="/\x9b31m\u2028\u202e", recordid="a\nforged")
    logging.getLogger("other").warning("told \x1b]0;title\x07")
    shown = capsys.readouterr().err
    assert not set(shown) & set("\x1b\x9b\x07\u2028\u202e")
    assert len(shown.splitlines()) == 2


def test_json_keeps_the_meaning_of_what_it_escapes(capsys):
    configure_logging("json")
    get_logger("http").info("request", route="/\x1b\x9b\u2028")
    assert json.loads(capsys.readouterr().err)["route"] == "/\x1b\x9b\u2028"


def test_auto_is_for_reading_on_a_terminal_only(monkeypatch):
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "w") as terminal:
            monkeypatch.setattr("sys.stderr", terminal)
            assert is_console("auto") and not is_console("json")
    finally:
        os.close(ours)
    with Path(os.devnull).open("w") as pipe:
        monkeypatch.setattr("sys.stderr", pipe)
        assert not is_console("auto") and is_console("console")


def test_a_validation_error_is_what_it_says():
    with pytest.raises(ValidationError, match=PRIVATE):
        by_schema(PRIVATE)
