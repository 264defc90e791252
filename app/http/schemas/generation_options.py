"""Fields that the native generating routes add to those of ``sampling``."""

from __future__ import annotations

from typing import Annotated

import re2
from pydantic import Field, field_validator

from app.core.errors import InvalidParameterError
from app.core.settings import Settings
from app.engine.text.growing_patterns import MAX_TOTAL_SIZE, growing
from app.http.schemas.sampling_fields import Length, SamplingOptions
from app.http.schemas.strict import RecordId, StopString

MAX_PATTERNS = 16
MAX_BAD_WORDS = 64
MAX_LOGPROBS = 20


class GenerationOptions(SamplingOptions):
    """How to generate, on ``/complete``, ``/chat`` and ``/``.

    A silent request takes temperature, top_p, top_k and repetition_penalty from the model's
    ``generation_config.json``.
    """

    max_new_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens to generate at most; lowered to what fits the context and the server's MAX_NEW_TOKENS. "
        "Default: the server's DEFAULT_NEW_TOKENS, or what fits.",
    )
    min_new_tokens: int | None = Field(None, ge=0, description="Tokens before which no end token is generated.")
    truncate_before_pattern: Annotated[list[StopString], Field(max_length=MAX_PATTERNS, fail_fast=True)] | None = Field(
        None, description="RE2 regular expressions, multi-line; the completion ends before the first match."
    )
    bad_words: Annotated[list[StopString], Field(max_length=MAX_BAD_WORDS, fail_fast=True)] | None = Field(
        None, description="Words that are not generated, with and without a space before them."
    )
    logprobs: bool | int | None = Field(
        None,
        description=f"0 to {MAX_LOGPROBS}: log-probability of each token, and of that many best ones. "
        "false or null: none.",
    )
    recordid: RecordId | None = Field(None, description="Returned in the answer and written to the log.")

    @field_validator("logprobs")
    @classmethod
    def _bounded_logprobs(cls, value: bool | int | None) -> bool | int | None:
        if value is True or (value is not None and not 0 <= value <= MAX_LOGPROBS):
            raise ValueError(f"should be a number from 0 to {MAX_LOGPROBS}, false or null")
        return value

    @field_validator("truncate_before_pattern")
    @classmethod
    def _valid_patterns(cls, value: list[str] | None) -> list[str] | None:
        _require_valid_patterns(value or [])
        return value

    @property
    def record_key(self) -> str | int | None:
        return self.recordid

    @property
    def total_tokens(self) -> int | None:
        """The bound on prompt plus completion, where the route has one."""
        return None

    def length(self, settings: Settings) -> Length:
        return Length("max_new_tokens", self.max_new_tokens, settings.default_new_tokens, self.total_tokens)

    @property
    def least_tokens(self) -> int:
        return self.min_new_tokens or 0

    @property
    def banned_words(self) -> list[str]:
        return self.bad_words or []

    @property
    def patterns(self) -> list[StopString]:
        return self.truncate_before_pattern or []

    @property
    def num_logprobs(self) -> int | None:
        return None if self.logprobs is None or self.logprobs is False else int(self.logprobs)


def _require_valid_patterns(patterns: list[str]) -> None:
    param = "truncate_before_pattern"
    try:
        num_instructions = sum(growing(pattern).size for pattern in patterns)
    except re2.error:
        text = f"{param}: not a valid RE2 regular expression, or too large a one"
        raise InvalidParameterError(text, param=param) from None
    if num_instructions > MAX_TOTAL_SIZE:
        raise InvalidParameterError(f"{param}: these patterns are too large together", param=param)
