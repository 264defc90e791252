"""LangChain's models with ``bind_tools`` on all three routes: two calls, invoked and streamed."""

from __future__ import annotations

from functools import reduce
from operator import add

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from telling import ASK, KEY, MODEL, URL, require_loop, tell, weather_in


@tool
def get_weather(city: str) -> str:
    """Tells the weather."""
    return weather_in(city)


def loop(ask):
    messages = [HumanMessage(ASK)]
    while (message := ask(messages)).tool_calls:
        messages.append(message)
        messages += [get_weather.invoke(call) for call in message.tool_calls]
    return message.text if isinstance(message.text, str) else message.text()


OPENAI = {"base_url": f"{URL}/v1", "api_key": KEY, "model": MODEL, "max_retries": 0}
models = [
    ChatOpenAI(**OPENAI, use_responses_api=False),
    ChatOpenAI(**OPENAI, use_responses_api=True, store=False),
    ChatAnthropic(base_url=URL, api_key=KEY, model=MODEL, max_tokens=300, max_retries=0),
]
for model in models:
    bound = model.bind_tools([get_weather])
    require_loop(loop(bound.invoke))

    def streamed(messages, bound=bound):
        chunks = list(bound.stream(messages))
        assert len(chunks) > 1 and isinstance(chunks[0], AIMessageChunk)
        return reduce(add, chunks)

    require_loop(loop(streamed))
tell("langchain-openai", "chat", "responses")
tell("langchain-anthropic", "messages")
