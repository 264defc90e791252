"""llm's models of OpenAI's API from a file as its documentation has it: a chain of two calls, whole and streamed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from telling import ASK, KEY, MODEL, URL, require_loop, tell, weather_in

folder = Path(tempfile.mkdtemp())
os.environ["LLM_USER_PATH"] = str(folder)
(folder / "extra-openai-models.yaml").write_text(
    f"- model_id: forklift\n  model_name: {MODEL}\n  api_base: {URL}/v1\n  api_key_name: forklift\n"
    "  supports_tools: true\n",
    encoding="utf-8",
)
(folder / "keys.json").write_text(json.dumps({"forklift": KEY}), encoding="utf-8")

import llm  # noqa: E402 - reads its folder as it is imported


def get_weather(city: str) -> str:
    """Tells the weather."""
    return weather_in(city)


model = llm.get_model("forklift")
for is_streamed in (False, True):
    answer = model.chain(ASK, tools=[get_weather], stream=is_streamed, options={"max_tokens": 300})
    require_loop("".join(answer).strip())
tell("llm", "chat")
