"""`<tool_call>{"name": .., "arguments": {..}}</tool_call>`: Hermes, Qwen 2.5 and 3, Granite 4 and many more.

Source: the chat templates of NousResearch/Hermes-3-Llama-3.1-8B, Qwen/Qwen3-8B and ibm-granite/granite-4.0-micro.
A call needs no closing tag, and one pair of tags may hold several.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_enclosed_calls

OPEN, CLOSE = "<tool_call>", "</tool_call>"

HERMES = CallForm("hermes", (OPEN,), lambda s, sign, _tools: read_enclosed_calls(s, sign, CLOSE), marks=(CLOSE,))
