"""pydantic-ai's agents on all three routes: two calls, run whole and streamed, and a typed output."""

from __future__ import annotations

import asyncio

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from telling import ASK, KEY, MODEL, URL, require_loop, tell, weather_in


class Report(BaseModel):
    """A typed output."""

    rains: bool


openai = OpenAIProvider(openai_client=AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0))
anthropic = AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0))


async def main() -> None:
    chat = OpenAIChatModel(MODEL, provider=openai)
    for model in (chat, OpenAIResponsesModel(MODEL, provider=openai), AnthropicModel(MODEL, provider=anthropic)):
        agent = Agent(model, instructions="Be brief.", model_settings={"max_tokens": 300})

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """Tells the weather."""
            return weather_in(city)

        require_loop((await agent.run(ASK)).output)
        async with agent.run_stream(ASK) as result:
            require_loop(await result.get_output())
    typed = Agent(chat, output_type=NativeOutput(Report))
    assert isinstance((await typed.run(ASK)).output, Report)


asyncio.run(main())
tell("pydantic-ai-slim", "chat", "responses", "messages")
