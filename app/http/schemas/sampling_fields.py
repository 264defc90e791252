"""How tokens are chosen and when they end: the fields that all generating routes have in common.

Types are strict: ``true`` is no number and ``"1"`` neither. None means that the request is silent,
and the model's, OpenAI's or the server's default applies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, StringConstraints, field_validator, model_validator

from app.core.errors import InvalidParameterError
from app.core.settings import Settings
from app.core.work.sampling_params import Constraint, SamplingDefaults, SamplingParams
from app.http.schemas.response_format import MAX_REGEX_LENGTH, ResponseFormat, StructuredOutputs
from app.http.schemas.strict import StopString, StopStrings, StrictBody, bounded_size, refuse_together

if TYPE_CHECKING:
    from app.models.text_model import TextModel

# Below this, dividing float32 logits by the temperature overflows; 0 is the way to ask for greedy.
MIN_TEMPERATURE = 0.001
MAX_SALT_LENGTH = 256
MAX_CHOICES = 16
MAX_BIASES = 1024

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Bias = Annotated[float, Field(ge=-100, le=100)]
BiasKey = Annotated[str, StringConstraints(pattern="^(0|[1-9][0-9]{0,8})$")]


@dataclass(frozen=True, slots=True)
class Length:
    """How many tokens a request asks for, and the field that says so.

    ``total`` bounds prompt and completion together, and comes under ``max_length``. ``default`` None: the rest of
    the context, of which the caller gets what the time allows.
    """

    param: str
    wanted: int | None
    default: int | None
    total: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody said where the completion ends: then its time may end it."""
        return self.wanted is None and self.total is None and self.default is None


class SamplingOptions(StrictBody, ABC):
    """How to generate, whatever the prompt is and whatever its length is called."""

    temperature: float | None = Field(
        None, ge=0, le=100, description=f"0 is greedy; otherwise at least {MIN_TEMPERATURE}. Default: see the route."
    )
    top_p: float | None = Field(None, ge=0, le=1, description="Nucleus sampling; 1 is off.")
    top_k: int | None = Field(None, ge=-1, le=1_000_000, description="Best tokens kept; 0 and -1 are off.")
    min_p: float | None = Field(None, ge=0, le=1, description="Least share of the best token's probability; 0 is off.")
    typical_p: float | None = Field(None, gt=0, le=1, description="Mass of locally typical tokens kept; 1 is off.")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=100, description="Above 1 discourages tokens of the prompt and completion; 1 is off."
    )
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="Taken off tokens that were generated.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="The same for each time they were.")
    logit_bias: Annotated[dict[BiasKey, Bias], Field(max_length=MAX_BIASES), bounded_size(MAX_BIASES)] | None = Field(
        None, description="Token id (as a string) to what is added to its logit."
    )
    stop: StopStrings | None = Field(None, description="Strings that end the completion; they are not part of it.")
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = Field(
        None, description="Tokens that end the completion beside the model's end token."
    )
    ignore_eos: bool | None = Field(None, description="Go on after the model's end token. Default: false.")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Same seed, same request, same settings: same output. The choice of index i uses seed + i.",
    )
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="Completions per prompt. Default: 1.")
    response_format: ResponseFormat | None = Field(None, description="JSON that the completion must be.")
    regex: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REGEX_LENGTH)] | None = Field(
        None, description="Regular expression that the whole completion must match."
    )
    structured_outputs: StructuredOutputs | None = Field(
        None, description="vLLM's: a schema, a regular expression, choices or a grammar that the completion matches."
    )
    cache_salt: Annotated[str, StringConstraints(max_length=MAX_SALT_LENGTH)] | None = Field(
        None, description="Computed prompt prefixes are shared only among requests of the same API key and salt."
    )
    stream: bool | None = Field(None, description="Answer with server-sent events. Default: false.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")

    @field_validator("temperature")
    @classmethod
    def _not_too_cold(cls, value: float | None) -> float | None:
        if value is not None and 0 < value < MIN_TEMPERATURE:
            raise ValueError(f"should be 0 (greedy) or at least {MIN_TEMPERATURE}")
        return value

    @model_validator(mode="after")
    def _constraint_alone(self) -> SamplingOptions:
        """Where a grammar has come to its end, only the end token is left: nothing else may forbid it."""
        refuse_together(self, "regex", "structured_outputs", "ignore_eos")
        refuse_together(self, "structured_outputs", "ignore_eos")
        if self.constraint is not None:
            refuse_together(self, "response_format", "regex", "structured_outputs", "ignore_eos")
            if self.banned_words or self.least_tokens:
                param = "bad_words" if self.banned_words else self.least_tokens_param
                raise InvalidParameterError(f"{param}: cannot be sent together with a response format", param=param)
        return self

    @property
    def constraint(self) -> Constraint | None:
        """What the completion must match."""
        if self.regex is not None:
            return Constraint("regex", self.regex)
        if self.structured_outputs is not None:
            return self.structured_outputs.constraint()
        return self.response_format.constraint() if self.response_format else None

    @property
    def has_grammar(self) -> bool:
        """Whether a grammar has to be compiled."""
        return self.constraint is not None

    def constraint_of(self, model: TextModel, prompt_ids: list[int]) -> Constraint | None:
        """What this model's completion of the prompt must match."""
        return self.constraint

    @property
    def record_key(self) -> str | int | None:
        """The caller's own name for the request, for the log."""
        return None

    @property
    def given_seed(self) -> int | None:
        """The seed, under whichever name it came."""
        return self.seed

    @property
    def num_choices(self) -> int:
        """Jobs per prompt."""
        return self.n or 1

    @property
    def num_sequences(self) -> int:
        """Jobs of the request: each takes a place."""
        return self.num_choices

    @property
    @abstractmethod
    def prompt_param(self) -> str:
        """The field that holds the prompt, to be named when it is too long."""

    @abstractmethod
    def length(self, settings: Settings) -> Length:
        """How many tokens are asked for."""

    def defaults(self, model: TextModel) -> SamplingDefaults:
        """What silent fields mean."""
        return model.defaults

    least_tokens_param: ClassVar[str] = "min_new_tokens"

    @property
    def least_tokens(self) -> int:
        """Tokens before which the completion may not end."""
        return 0

    @property
    def banned_words(self) -> list[str]:
        """Strings that must not be generated."""
        return []

    @property
    def patterns(self) -> list[StopString]:
        """RE2 patterns before which the completion ends."""
        return []

    @property
    def num_logprobs(self) -> int | None:
        """Best tokens to tell with each generated one; None where no log-probability is needed."""
        return None

    @property
    def num_prompt_logprobs(self) -> int | None:
        """The same for the prompt's tokens."""
        return None

    def reading(self, model: TextModel, prompt_ids: list[int]) -> dict[str, Any]:
        """Parameters of the engine for an answer that is told apart: special tokens that are text, its reasoning."""
        return {}

    def overrides(self) -> dict[str, Any]:
        """Parameters of the engine that other fields decide."""
        return {}

    def sampling(self, defaults: SamplingDefaults, max_new_tokens: int) -> SamplingParams:
        """The engine's parameters; each silent field takes its default by itself."""
        return replace(self._own_sampling(defaults, max_new_tokens), **self.overrides())

    def _own_sampling(self, defaults: SamplingDefaults, max_new_tokens: int) -> SamplingParams:
        taken = {name: default for name in NAMED_ALIKE if (default := getattr(defaults, name, None)) is not None}
        taken |= {name: sent for name in NAMED_ALIKE if (sent := getattr(self, name)) is not None}
        params = SamplingParams(
            **taken,
            max_new_tokens=max_new_tokens,
            logit_bias=tuple((int(token), float(bias)) for token, bias in (self.logit_bias or {}).items()),
            min_new_tokens=self.least_tokens,
            seed=None if self.given_seed is None else self.given_seed % 2**63,
            stop=tuple(self.stop or ()),
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            truncate_before_pattern=tuple(self.patterns),
            num_logprobs=self.num_logprobs,
            num_prompt_logprobs=self.num_prompt_logprobs,
        )
        return replace(params, top_k=max(params.top_k, 0))


# Go from a body to the engine by their names alone; a silent one takes the model's default, else the engine's.
NAMED_ALIKE = [
    one.name
    for one in fields(SamplingParams)
    if one.name in SamplingOptions.model_fields and isinstance(one.default, int | float)
]
