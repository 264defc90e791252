"""What an answer of ``/v1/responses`` repeats of its request. HTTP threads; pure functions."""

from __future__ import annotations

from typing import Any

from app.http.dialects.responses.input_items import NamedFunction, OwnFunction
from app.http.dialects.responses.response_types import ResponseSettings, ShownFunction
from app.http.dialects.responses.responses_body import ResponsesBody, TextConfig


def settings_of(body: ResponsesBody) -> ResponseSettings:
    """The request's fields with their defaults; nothing that has none is left out."""
    choice = body.tool_choice or "auto"
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": _format(body.text)},
        "tool_choice": {"type": "function", "name": choice.name} if isinstance(choice, NamedFunction) else choice,
        "tools": [_tool(tool) for tool in body.tools or []],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "background": False,
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        "service_tier": "default",
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
    }


def _tool(tool: OwnFunction) -> ShownFunction:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": bool(tool.strict),
    }


def _format(text: TextConfig | None) -> dict[str, Any]:
    if text is None or text.format is None:
        return {"type": "text"}
    shown = text.format.model_dump(by_alias=True)
    return {name: value for name, value in shown.items() if value is not None}
