"""Fields that every generating route takes, with their bounds.

Types are strict: ``true`` is no number and ``"1"`` neither. None means that the request is silent,
and the model's or the server's default applies.
"""

from __future__ import annotations

from typing import Annotated

import re2
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.jobs import SamplingParams
from app.engine.text import compile_pattern
from app.http.backend import SamplingDefaults

MAX_STOPS = 16
MAX_STOP_LENGTH = 256
# Below this, dividing float32 logits by the temperature overflows; 0 is the way to ask for greedy.
MIN_TEMPERATURE = 0.001


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


StopString = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP_LENGTH)]
StopStrings = Annotated[
    list[StopString],
    Field(max_length=MAX_STOPS),
    BeforeValidator(_listed, json_schema_input_type=StopString | list[StopString]),
]
RecordId = Annotated[str, StringConstraints(max_length=256)] | Annotated[int, Field(ge=-(2**63), lt=2**63)]


class StrictBody(BaseModel):
    """A JSON object of known fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class GenerationOptions(StrictBody):
    """How to generate, whatever the prompt is."""

    max_new_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens to generate at most; refused where prompt and completion would not fit the context. "
        "Default: the server's DEFAULT_NEW_TOKENS, or what fits.",
    )
    temperature: float | None = Field(
        None, ge=0, le=100, description=f"0 is greedy; otherwise at least {MIN_TEMPERATURE}. Default: the model's."
    )
    top_p: float | None = Field(None, ge=0, le=1, description="Nucleus sampling; 1 is off. Default: the model's.")
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="Best tokens kept; 0 is off. Default: the model's.")
    min_p: float | None = Field(None, ge=0, le=1, description="Least share of the best token's probability; 0 is off.")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=100, description="Above 1 discourages tokens that were seen; 1 is off. Default: the model's."
    )
    stop: StopStrings | None = Field(None, description="Strings that end the completion; they are not part of it.")
    truncate_before_pattern: Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = Field(
        None, description="RE2 regular expressions, multi-line; the completion ends before the first match."
    )
    ignore_eos: bool | None = Field(None, description="Go on after the model's end token. Default: false.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Same seed, same request, same settings: same output.")
    n: int | None = Field(None, description="Completions per request; only 1 is supported.")
    logprobs: bool | int | None = Field(None, description="Not supported yet: null or false.")
    stream: bool | None = Field(None, description="Answer with server-sent events. Default: false.")
    recordid: RecordId | None = Field(None, description="Returned in the answer and written to the log.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")

    @field_validator("temperature")
    @classmethod
    def _not_too_cold(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < MIN_TEMPERATURE:
            raise ValueError(f"should be 0 (greedy) or at least {MIN_TEMPERATURE}")
        return value

    @field_validator("n")
    @classmethod
    def _one_only(cls, value: int | None) -> int | None:
        if value not in (None, 1):
            raise UnsupportedParameterError("n: only 1 completion per request is supported", param="n")
        return value

    @field_validator("logprobs")
    @classmethod
    def _no_logprobs(cls, value: bool | int | None) -> bool | int | None:
        if value is not None and value is not False:
            raise UnsupportedParameterError("logprobs are not supported", param="logprobs")
        return value

    @field_validator("truncate_before_pattern")
    @classmethod
    def _valid_patterns(cls, value: list[str] | None) -> list[str] | None:
        for pattern in value or []:
            _require_valid_pattern(pattern)
        return value

    @property
    def total_tokens(self) -> int | None:
        """The bound on prompt plus completion, where the route has one."""
        return None

    @property
    def num_choices(self) -> int:
        """Completions per prompt."""
        return self.n or 1

    @property
    def prompt_param(self) -> str:
        """The field that holds the prompt, to be named when it is too long."""
        raise NotImplementedError

    def sampling(self, defaults: SamplingDefaults, max_new_tokens: int) -> SamplingParams:
        """Each silent field takes the model's default by itself."""
        return SamplingParams(
            max_new_tokens=max_new_tokens,
            temperature=float(_or(self.temperature, defaults.temperature)),
            top_k=int(_or(self.top_k, defaults.top_k)),
            top_p=float(_or(self.top_p, defaults.top_p)),
            min_p=float(_or(self.min_p, 0.0)),
            repetition_penalty=float(_or(self.repetition_penalty, defaults.repetition_penalty)),
            seed=self.seed,
            stop=tuple(self.stop or ()),
            truncate_before_pattern=tuple(self.truncate_before_pattern or ()),
            ignore_eos=bool(self.ignore_eos),
        )


def require_one(body: StrictBody, *names: str) -> None:
    """Raise ``InvalidParameterError`` unless exactly one of the fields is given."""
    given = [name for name in names if getattr(body, name) is not None]
    if len(given) != 1:
        problem = "is missing" if not given else f"cannot be sent together with {given[0]}"
        param = names[0] if not given else given[1]
        raise InvalidParameterError(f"{param}: {problem}; send exactly one of {', '.join(names)}", param=param)


def _require_valid_pattern(pattern: str) -> None:
    try:
        compile_pattern(pattern)
    except re2.error:
        raise InvalidParameterError(
            "truncate_before_pattern: not a valid RE2 regular expression", param="truncate_before_pattern"
        ) from None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
