"""What llama.cpp's server tells beside the text, for the plugins that read it. HTTP threads; pure functions.

Names and meanings are those of its README (ggml-org/llama.cpp, tools/server).
"""

from __future__ import annotations

from typing import Any, cast

from app.http.answers.native_types import InfillAnswer, InfillTimings, LlamaCppDetails, SelectedFields
from app.http.requests.running import RunningRequest


def llama_cpp_details(generation: RunningRequest, context_tokens: int) -> LlamaCppDetails:
    """Counts, speeds, and how the completion ended."""
    usage, last = generation.usage(), generation.outputs[-1]
    return {
        "stop": True,
        "stop_type": "limit" if last.finish_reason == "length" else "word" if last.is_cut else "eos",
        "truncated": False,
        "tokens_cached": usage["prompt_tokens_details"]["cached_tokens"],
        "tokens_evaluated": usage["prompt_tokens"],
        "tokens_predicted": usage["completion_tokens"],
        "id_slot": 0,
        "generation_settings": {"n_ctx": context_tokens},
    }


def llama_cpp_timings(generation: RunningRequest) -> InfillTimings:
    """Our own points in time, and what they mean per token and per second."""
    points, usage = generation.timings().as_ms(), generation.usage()
    num_read = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
    prompt_ms = max(points["ttft_ms"] - points["queue_ms"], 0.0)
    predicted_ms = max(points["total_ms"] - points["ttft_ms"], 0.0)
    speeds = _speed("prompt", num_read, prompt_ms) | _speed("predicted", usage["completion_tokens"], predicted_ms)
    return cast(InfillTimings, points | speeds)


def _speed(name: str, number: int, took_ms: float) -> dict[str, float]:
    return {
        f"{name}_n": number,
        f"{name}_ms": took_ms,
        f"{name}_per_token_ms": took_ms / number if number else 0.0,
        f"{name}_per_second": number / took_ms * 1000 if took_ms else 0.0,
    }


def selected(answer: InfillAnswer, fields: list[str] | None) -> InfillAnswer | SelectedFields:
    """The fields that were asked for, each under the path that named it; those that there are not are left out."""
    if fields is None:
        return answer
    found: SelectedFields = {}
    for path in fields:
        value: Any = answer
        for step in path.split("/"):
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            found[path] = value
    return found
