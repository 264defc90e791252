"""`<|tool_call|>[{"name": .., "arguments": {..}}, ..]`: Granite 3, with the tag as one token.

Source: the chat templates of ibm-granite/granite-3.3-8b-instruct and granite-3.1-8b-instruct. Granite 3.0 writes
`<tool_call>` in front of the list; both are read. Granite 4 writes Hermes' form.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_enclosed_calls

OPENS, CLOSES = ("<|tool_call|>", "<tool_call>"), ("</tool_call>", "<|/tool_call|>")
GRANITE = CallForm("granite", OPENS, lambda s, sign, _tools: read_enclosed_calls(s, sign, *CLOSES), marks=CLOSES)
