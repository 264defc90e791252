"""`<|START_ACTION|>[{"tool_call_id": "0", "tool_name": .., "parameters": {..}}]<|END_ACTION|>`: Command R7B and A.

Source: the tool use template of CohereForAI/c4ai-command-r7b-12-2024. The ids count the calls of a conversation, which
the template does by itself: callers are given others.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_enclosed_calls

OPEN, CLOSE = "<|START_ACTION|>", "<|END_ACTION|>"
COHERE = CallForm("cohere", (OPEN,), lambda s, sign, _tools: read_enclosed_calls(s, sign, CLOSE), marks=(CLOSE,))
