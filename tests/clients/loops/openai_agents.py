"""``openai-agents`` on both of OpenAI's routes: an agent that calls twice, run whole and streamed."""

from __future__ import annotations

import asyncio

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from telling import ASK, KEY, MODEL, URL, require_loop, tell, weather_in


@function_tool
def get_weather(city: str) -> str:
    """Tells the weather."""
    return weather_in(city)


async def main() -> None:
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as client:
        for model in (OpenAIChatCompletionsModel(MODEL, client), OpenAIResponsesModel(MODEL, client)):
            settings = ModelSettings(store=False)
            agent = Agent(name="a", instructions="Be brief.", model=model, tools=[get_weather], model_settings=settings)
            require_loop((await Runner.run(agent, ASK)).final_output)
            running = Runner.run_streamed(agent, ASK)
            kinds = {event.type async for event in running.stream_events()}
            assert "raw_response_event" in kinds and "run_item_stream_event" in kinds
            require_loop(running.final_output)


asyncio.run(main())
tell("openai-agents", "chat", "responses")
