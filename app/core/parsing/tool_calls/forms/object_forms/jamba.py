"""`<tool_calls>[{"name": .., "arguments": {..}}, ..]</tool_calls>`: Jamba, Hunyuan, Apriel.

Source: the chat templates of ai21labs/AI21-Jamba-Mini-1.6, tencent/Hunyuan-A13B-Instruct (vLLM's
`tool_chat_template_hunyuan_a13b.jinja`) and ServiceNow-AI/Apriel-1.5-15b-Thinker;
MiniMax M1 writes objects without a list.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_enclosed_calls

OPEN, CLOSE = "<tool_calls>", "</tool_calls>"
JAMBA = CallForm("jamba", (OPEN,), lambda s, sign, _tools: read_enclosed_calls(s, sign, CLOSE), marks=(CLOSE,))
