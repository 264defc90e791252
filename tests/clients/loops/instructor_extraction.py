"""instructor on chat and messages: typed answers by a forced call and by a schema, whole and streamed."""

from __future__ import annotations

from typing import Literal

import anthropic
import instructor
import openai
from pydantic import BaseModel
from telling import ASK, KEY, MODEL, URL, tell


class Report(BaseModel):
    """A typed answer."""

    rains: bool
    city: Literal["Bonn", "Oslo"]


MESSAGES = [{"role": "user", "content": ASK}]
COMMON = {"model": MODEL, "messages": MESSAGES, "response_model": Report, "max_tokens": 300, "max_retries": 0}
chat = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(chat, mode=mode)
    assert isinstance(client.chat.completions.create(**COMMON), Report)
    *_, last = client.chat.completions.create_partial(**COMMON)
    assert isinstance(last.rains, bool)
messages = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
client = instructor.from_anthropic(messages, mode=instructor.Mode.ANTHROPIC_TOOLS)
assert isinstance(client.messages.create(**COMMON), Report)
tell("instructor", "chat", "messages")
