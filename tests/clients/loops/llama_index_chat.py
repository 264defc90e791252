"""LlamaIndex's model for servers like OpenAI's: a chat and a completion, whole and streamed."""

from __future__ import annotations

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from telling import KEY, URL, tell

SERVER = {
    "api_base": f"{URL}/v1",
    "api_key": KEY,
    "model": "texts",
    "max_tokens": 8,
    "temperature": 0,
    "max_retries": 0,
}
chat = OpenAILike(**SERVER, is_chat_model=True)
ask = [ChatMessage(role="user", content="hello")]
assert [*chat.stream_chat(ask)][-1].message.content == chat.chat(ask).message.content
text = OpenAILike(**SERVER, is_chat_model=False)
assert [*text.stream_complete("def load(")][-1].text == text.complete("def load(").text
tell("llama-index-llms-openai-like", "/v1/chat/completions", "/v1/completions")
