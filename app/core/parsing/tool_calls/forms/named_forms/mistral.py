"""`[TOOL_CALLS][{"name": .., "arguments": {..}}]` (v3) and `[TOOL_CALLS]name[ARGS]{..}` (v11 and later): Mistral.

Source: mistral-common's instruct tokenizers and the chat templates of mistralai/Mistral-7B-Instruct-v0.3 and
Mistral-Small-3.2-24B-Instruct-2506. v11 may write `[CALL_ID]` between name and arguments. Its templates take ids of
nine letters and digits, and no others.
"""

from __future__ import annotations

import re

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import begin_json, read_json_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

CALLS, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"

_NAME = re.compile(r"[\w.\-]*")


def _read(s: Scanner, sign: str, _tools: KnownTools) -> Steps[None]:
    s.at += len(sign)
    yield from s.skip_space()
    if (yield from s.is_next("[", "{")):
        yield from read_json_calls(s)
        return
    name = yield from s.run(_NAME)
    if s.is_last and s.at == len(s.text):
        raise EndedError("a name has no end")
    if not name:
        raise MalformedError("no name of a function")
    if (yield from s.accept(CALL_ID)):
        yield from s.run(_NAME)
    yield from s.accept(ARGS)
    yield from begin_json(s, name)


MISTRAL = CallForm("mistral", (CALLS,), _read, marks=(CALL_ID, ARGS), id_length=9)
