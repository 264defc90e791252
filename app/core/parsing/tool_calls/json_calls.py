"""Calls that are JSON objects: `{"name": .., "arguments": {..}}`, one, several or a list. Pure; any thread.

A name that comes first is passed on as soon as its arguments begin, and those in pieces. A call that ends too early is
a call once its name is known. Where the arguments stop to be JSON the call ends with those that went out.
"""

from __future__ import annotations

from collections.abc import Collection

from app.core.parsing.tool_calls.json_text import MAX_DEPTH, collected, read_string, read_value, string_value, whole
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

# Where the arguments stand: templates of other families say parameters.
ARGUMENT_KEYS = ("arguments", "parameters")
# Where its name does: Cohere's templates say which tool.
NAME_KEYS = ("name", "tool_name")
# What the object of a call begins with.
FIRST_KEYS = (*NAME_KEYS, "type", "function", "id", "tool_call_id", *ARGUMENT_KEYS)
SEPARATORS = (",", ";")


class _Call:
    """What is known of one object. ``known``: where there are any, only these names are names of functions."""

    def __init__(self, s: Scanner, known: Collection[str] | None):
        self._s = s
        self._known = known
        self._name: str | None = None
        self._arguments: str | None = None
        self.is_started = False

    @property
    def is_named(self) -> bool:
        return self._name is not None

    def set_name(self, source: str) -> None:
        """Raises ``MalformedError`` where ``source`` is no name."""
        name = string_value(source) if source.startswith('"') else ""
        if not name or (self._known is not None and name not in self._known):
            raise MalformedError("no name of a function")
        if self._name is None:
            self._name = name
            if self._arguments is not None:
                self.start(self._arguments)

    def set_arguments(self, text: str) -> None:
        if self._name is not None:
            self.start(text)
        elif self._arguments is None:
            self._arguments = text

    def start(self, arguments: str = "") -> None:
        if not self.is_started:
            assert self._name is not None, "a call starts with its name"
            self._s.start_call(self._name)
            self._s.add_arguments(arguments)
            self.is_started = True


def read_json_call(s: Scanner, known: Collection[str] | None = None) -> Steps[bool]:
    """Read the object that begins here; False, and nothing read, where it is no call."""
    start, call = s.at, _Call(s, known)
    try:
        yield from _read_object(s, call, MAX_DEPTH)
        if call.is_named:
            call.start("{}")
    except EndedError:
        if call.is_named:
            call.start()
            s.at = len(s.text)
    except MalformedError:
        pass
    if not call.is_started:
        s.at = start
    return call.is_started


def _read_object(s: Scanner, call: _Call, depth: int) -> Steps[None]:
    yield from s.require("{")
    is_first = True
    while True:
        yield from s.skip_space()
        if (yield from s.accept("}")):
            return
        key = string_value((yield from collected(s, read_string)))
        if is_first and key not in FIRST_KEYS:
            raise MalformedError("no object of a call")
        is_first = False
        yield from s.skip_space()
        yield from s.require(":")
        yield from s.skip_space()
        yield from _read_member(s, call, key, depth)
        yield from s.skip_space()
        if not (yield from s.accept(",")):
            yield from s.require("}")
            return


def _read_member(s: Scanner, call: _Call, key: str, depth: int) -> Steps[None]:
    sign = yield from s.peek()
    if call.is_started or key not in (*ARGUMENT_KEYS, *NAME_KEYS, "function"):
        yield from collected(s, read_value)
    elif key in NAME_KEYS:
        call.set_name((yield from collected(s, read_value)))
    elif key == "function":
        yield from _read_function(s, call, sign, depth)
    elif sign == "{" and call.is_named:
        call.start()
        yield from read_value(s, s.add_arguments)
    else:
        call.set_arguments(_as_object((yield from collected(s, read_value))))


def _read_function(s: Scanner, call: _Call, sign: str, depth: int) -> Steps[None]:
    """OpenAI's own form: name and arguments stand one level deeper."""
    if sign == "{" and depth == MAX_DEPTH:
        yield from _read_object(s, call, depth - 1)
    else:
        yield from collected(s, read_value)


def _as_object(source: str) -> str:
    """The arguments as the text of an object, also where the model wrote them as text. Raises ``MalformedError``."""
    if source.startswith('"'):
        text = string_value(source)
        source = (whole(text) or "") if text.strip() else "{}"
    source = "{}" if source == "null" else source
    if not source.startswith("{"):
        raise MalformedError("the arguments are no object")
    return source


def read_json_calls(s: Scanner, known: Collection[str] | None = None) -> Steps[bool]:
    """Read objects that follow each other, or a list of them; whether there was a call. White space before is read."""
    start, num_before = s.at, s.num_calls
    yield from s.skip_space()
    is_list = yield from s.accept("[")
    while True:
        before = s.at
        yield from s.skip_space()
        if not ((yield from s.is_next("{")) and (yield from read_json_call(s, known))):
            s.at = before
            break
        yield from read_closing(s, *SEPARATORS)
    if is_list:
        yield from read_closing(s, "]")
    if s.num_calls == num_before:
        s.at = start
    return s.num_calls > num_before


def read_enclosed_calls(s: Scanner, sign: str, *closings: str) -> Steps[None]:
    """Read ``sign``, which stands next, the objects or the list of them behind it, and one of ``closings``, if any."""
    s.at += len(sign)
    if (yield from read_json_calls(s)):
        yield from read_closing(s, *closings)


def read_closing(s: Scanner, *signs: str) -> Steps[bool]:
    """Read one of ``signs`` and the white space before it; where there is none, nothing is read."""
    start = s.at
    yield from s.skip_space()
    if (yield from s.accept(*signs)):
        return True
    s.at = start
    return False


def begin_json(s: Scanner, name: str, *closings: str, call_id: str = "") -> Steps[None]:
    """A call of ``name`` whose arguments are an object that stands next; before one of ``closings`` there are none.

    Raises ``MalformedError`` where something else stands there.
    """
    yield from s.skip_space()
    if (yield from s.is_next("{")):
        s.start_call(name, call_id)
        yield from read_value(s, s.add_arguments)
    elif closings and (yield from s.is_next(*closings)):
        s.start_call(name, call_id)
        s.add_arguments("{}")
    else:
        failure = s.failure("{", *closings)
        if isinstance(failure, EndedError):
            s.start_call(name, call_id)
        raise failure
