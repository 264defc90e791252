"""`<TOOLCALL>[{"name": .., "arguments": {..}}, ..]</TOOLCALL>`: Nemotron Nano 2, Llama-Nemotron.

Source: the chat templates of nvidia/NVIDIA-Nemotron-Nano-9B-v2 and Llama-3_3-Nemotron-Super-49B-v1_5. Nemotron 3
writes Qwen3-Coder's tags.
"""

from __future__ import annotations

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import read_enclosed_calls

OPEN, CLOSE = "<TOOLCALL>", "</TOOLCALL>"
NEMOTRON = CallForm("nemotron", (OPEN,), lambda s, sign, _tools: read_enclosed_calls(s, sign, CLOSE), marks=(CLOSE,))
