"""`[{"name": .., "arguments": {..}}, ..]`, bare: Salesforce's xLAM.

Source: the chat templates of Salesforce/Llama-xLAM-2-8b-fc-r and xLAM-2-3b-fc-r (vLLM's
`tool_chat_template_xlam_*.jinja`). A list has to begin a line and its first object to name a function of the request:
else it is JSON that somebody asked for.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_json_calls
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import Scanner, Steps


def _read(s: Scanner, _sign: str, tools: KnownTools) -> Steps[None]:
    if s.is_at_line_start:
        yield from read_json_calls(s, tools.names)


XLAM = CallForm("xlam", ("[",), _read)
