"""llama.cpp's own fields, which its editor plugins send: followed where they mean something here, hints where not.

Source: the server's README (ggml-org/llama.cpp, tools/server) and the bodies of ggml-org/llama.vim and llama.vscode.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from app.core.errors import InvalidParameterError
from app.core.work.sampling_params import SamplingParams
from app.http.schemas.strict import StrictBody

MAX_FIELDS = 64
HINT = "llama.cpp's; a hint, has no effect."
Milliseconds = Annotated[float, Field(ge=0, le=86_400_000)]
Sampler = Literal[
    "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "typical_p", "top_p", "min_p", "xtc", "temperature", "infill"
]
# Values with which a parameter of the engine changes nothing.
OFF: dict[str, Any] = {one.name: one.default for one in fields(SamplingParams)} | {"temperature": 1.0}


class LlamaCppFields(StrictBody):
    """Fields that llama.cpp's server knows beside OpenAI's and ours."""

    n_predict: int | None = Field(
        None, ge=-2, description="llama.cpp's name for the most tokens; 0 only reads the prompt, below 0: what fits."
    )
    samplers: Annotated[list[Sampler], Field(max_length=MAX_FIELDS, fail_fast=True)] | None = Field(
        None,
        description="llama.cpp's; those of top_k, top_p, min_p, typ_p and temperature that it does not name are off, "
        "the order is ours; infill takes the likeliest token.",
    )
    t_max_predict_ms: Milliseconds | None = Field(
        None,
        description="llama.cpp's; this long after its first token a completion ends at the next line break. 0: off.",
    )
    id_slot: int | None = Field(None, description=HINT)
    cache_prompt: bool | None = Field(None, description=f"{HINT} A reused prefix changes no answer.")
    t_max_prompt_ms: Milliseconds | None = Field(None, description=HINT)
    n_keep: int | None = Field(None, description=f"{HINT} No prompt is ever cut.")
    n_cache_reuse: int | None = Field(None, description=HINT)
    response_fields: Annotated[list[str], Field(max_length=MAX_FIELDS, fail_fast=True)] | None = Field(
        None, description="llama.cpp's; on /infill the fields to be told, one below another as `timings/prompt_n`."
    )

    def overrides(self) -> dict[str, Any]:
        """What these fields make of the engine's parameters."""
        found: dict[str, Any] = {}
        if self.t_max_predict_ms:
            found["line_limit_s"] = self.t_max_predict_ms / 1000
        if self.samplers is None:
            return found
        names = {"typical_p" if name == "typ_p" else name for name in self.samplers}
        for left_out in set(get_args(Sampler)) - names:
            found |= switched_off(left_out)
        return {**found, "temperature": 0.0} if "infill" in names else found


def switched_off(sampler: str) -> dict[str, Any]:
    """The engine's parameters of a sampler, those with its name or that begin with it, with values that do nothing."""
    return {name: off for name, off in OFF.items() if name == sampler or name.startswith(f"{sampler}_")}


def one_bound(body: StrictBody, *names: str) -> tuple[str, int | None]:
    """The name and value of the bound that is given under one of its names, the first where none is.

    Raises ``InvalidParameterError`` where two differ.
    """
    given = [(name, getattr(body, name)) for name in names if getattr(body, name) is not None]
    for name, value in given[1:]:
        if value != given[0][1]:
            raise InvalidParameterError(f"{name}: differs from {given[0][0]}", param=name)
    return given[-1] if given else (names[0], None)


def is_unbounded(n_predict: int | None) -> bool:
    """Whether ``n_predict`` asks for all that fits."""
    return n_predict is not None and n_predict < 0
