"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.settings import Settings
from app.http.schemas.llama_cpp_fields import is_unbounded, one_bound
from app.http.schemas.openai_fields import OpenAIOptions
from app.http.schemas.sampling_fields import MAX_CHOICES, Length, TokenId

DEFAULT_TOKENS = 16
MAX_PROMPTS = 64
# Jobs of one request, which all run under one place.
MAX_JOBS = 128
MAX_LOGPROBS = 5

TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]
)


class CompletionsBody(OpenAIOptions):
    """Text or token ids to be continued, as OpenAI's API has it."""

    prompt: Prompt = Field(description="A text, several texts, token ids, or several lists of token ids.")
    suffix: str | None = Field(
        None,
        description="Text behind the completion, for models that fill in; with one prompt that is a text. "
        "An empty one is the same as none.",
    )
    max_tokens: int | None = Field(
        None,
        ge=-1,
        description=f"Most tokens; 0, with echo, scores the prompt; -1: what fits. Default: {DEFAULT_TOKENS}.",
    )
    best_of: int | None = Field(
        None, ge=1, le=MAX_CHOICES, description="Completions of which the n with the best mean log-probability return."
    )
    echo: bool | None = Field(None, description="Put the prompt in front of each completion. Default: false.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="Log-probability of each token, and of that many best ones."
    )

    @model_validator(mode="after")
    def _check(self) -> CompletionsBody:
        if self.max_tokens == 0 and not self.echo:
            raise InvalidParameterError("max_tokens: 0 only scores a prompt, which needs echo", param="max_tokens")
        one_bound(self, "max_tokens", "n_predict")
        self._check_best_of()
        if len(self.prompts) * self.num_choices > MAX_JOBS:
            text = f"prompt: prompts times completions must not be above {MAX_JOBS}"
            raise InvalidParameterError(text, param="prompt")
        if self.suffix:
            self._check_suffix()
        return self

    def _check_best_of(self) -> None:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise InvalidParameterError("best_of: must not be below n", param="best_of")
        if self.is_ranked and self.stream:
            text = "best_of: completions cannot be ranked before they have ended; stream needs best_of = n"
            raise InvalidParameterError(text, param="best_of")

    def _check_suffix(self) -> None:
        if not isinstance(self.prompt, str):
            raise UnsupportedParameterError("suffix: only with one prompt that is a text", param="suffix")
        if self.echo:
            raise UnsupportedParameterError("echo: cannot be sent together with suffix", param="echo")

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [one for one in self.prompt if not isinstance(one, int)]

    @property
    def is_ranked(self) -> bool:
        """Whether more completions are generated than returned."""
        return self.num_choices > (self.n or 1)

    @property
    def num_choices(self) -> int:
        return self.best_of or self.n or 1

    @property
    def num_sequences(self) -> int:
        return len(self.prompts) * self.num_choices

    @property
    def prompt_param(self) -> str:
        is_longer = isinstance(self.prompt, str) and len(self.suffix or "") > len(self.prompt)
        return "suffix" if is_longer else "prompt"

    @property
    def num_logprobs(self) -> int | None:
        return 0 if self.logprobs is None and self.is_ranked else self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        return self.logprobs if self.echo else None

    def length(self, settings: Settings) -> Length:
        name, bound = one_bound(self, "max_tokens", "n_predict")
        return Length(name, None, None) if is_unbounded(bound) else Length(name, bound, DEFAULT_TOKENS)
