"""Bodies of text-generation-inference's ``/generate``, and what they ask our engine for.

Source: its OpenAPI description (huggingface/text-generation-inference, docs/openapi.json, version 3).
"""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.settings import Settings
from app.core.work.sampling_params import Constraint, SamplingDefaults
from app.http.schemas.response_format import MAX_REGEX_LENGTH, BoundedObject
from app.http.schemas.sampling_fields import Length, SamplingOptions
from app.http.schemas.strict import StopStrings, StrictBody

# Its own default.
DEFAULT_TOKENS = 100
MAX_TOP_TOKENS = 20


class TgiJsonGrammar(StrictBody):
    """JSON by a schema."""

    type: Literal["json"]
    value: BoundedObject

    @property
    def constraint(self) -> Constraint:
        return Constraint("json_schema", json.dumps(self.value), given_in="grammar")


class TgiNamedSchema(StrictBody):
    """A schema with a name, which has no effect."""

    name: str | None = None
    schema_: BoundedObject = Field(alias="schema")


class TgiSchemaGrammar(StrictBody):
    """JSON by a schema with a name."""

    type: Literal["json_schema"]
    value: TgiNamedSchema

    @property
    def constraint(self) -> Constraint:
        return Constraint("json_schema", json.dumps(self.value.schema_), given_in="grammar")


class TgiRegexGrammar(StrictBody):
    """What a regular expression matches."""

    type: Literal["regex"]
    value: Annotated[str, StringConstraints(min_length=1, max_length=MAX_REGEX_LENGTH)]

    @property
    def constraint(self) -> Constraint:
        return Constraint("regex", self.value, given_in="grammar")


Grammar = Annotated[TgiJsonGrammar | TgiSchemaGrammar | TgiRegexGrammar, Field(discriminator="type")]


class TgiParameters(StrictBody):
    """How to generate. Greedy unless ``do_sample`` or a parameter of drawing says otherwise."""

    do_sample: bool | None = Field(None, description="Draw tokens. Default: only where a parameter of drawing is sent.")
    max_new_tokens: int | None = Field(None, ge=1, description=f"Tokens at most. Default: {DEFAULT_TOKENS}.")
    temperature: float | None = Field(None, gt=0, le=100)
    top_k: int | None = Field(None, ge=1, le=1_000_000)
    top_p: float | None = Field(None, gt=0, le=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    seed: int | None = Field(None, ge=0, lt=2**63, description="Default: one that is drawn, and told in the details.")
    stop: StopStrings | None = Field(None, description="Strings that end the text, which holds the one that did.")
    truncate: int | None = Field(None, ge=1, description="Of the prompt only its last so many tokens are read.")
    return_full_text: bool | None = Field(None, description="Put the prompt in front of the text.")
    details: bool | None = Field(None, description="Tell the tokens and why the text ended.")
    decoder_input_details: bool | None = Field(None, description="With details: tell the prompt's tokens, too.")
    top_n_tokens: int | None = Field(None, ge=0, le=MAX_TOP_TOKENS, description="With details: best tokens each time.")
    grammar: Grammar | None = Field(None, description="What the text must match.")
    best_of: int | None = Field(None, ge=1, description="1: others are not supported.")
    watermark: bool | None = Field(None, description="False: others are not supported.")
    frequency_penalty: float | None = Field(None, description="0: others are not supported, as theirs is no sum.")
    adapter_id: str | None = Field(None, description="Not supported.")

    @model_validator(mode="after")
    def _check(self) -> TgiParameters:
        for name, is_followed in {
            "best_of": self.best_of in (None, 1),
            "watermark": not self.watermark,
            "frequency_penalty": not self.frequency_penalty,
            "adapter_id": self.adapter_id is None,
        }.items():
            if not is_followed:
                raise UnsupportedParameterError(f"{name}: is not supported", param=name)
        return self

    @property
    def is_drawn(self) -> bool:
        """As text-generation-inference decides it: 1 in ``temperature``, ``top_p`` or ``typical_p`` changes nothing."""
        shares = (self.temperature, self.top_p, self.typical_p)
        return bool(self.do_sample or self.top_k) or any(share not in (None, 1) for share in shares)


class TgiBody(StrictBody):
    """A text to be continued."""

    inputs: Annotated[str, StringConstraints(min_length=1)] = Field(description="The text to continue.")
    parameters: TgiParameters | None = Field(None, description="How to.")

    def options(self, *, is_streamed: bool) -> TgiOptions:
        """The same for our engine. Raises ``InvalidParameterError``."""
        told = self.parameters or TgiParameters.model_validate({})
        wants_prompt = bool(told.decoder_input_details) and bool(told.details)
        if wants_prompt and is_streamed:
            text = "decoder_input_details: the prompt's tokens are not streamed"
            raise InvalidParameterError(text, param="decoder_input_details")
        needs_tokens = bool(is_streamed or told.details or told.stop)
        names = ("top_k", "top_p", "typical_p", "repetition_penalty", "stop")
        fields: dict[str, Any] = {name: value for name in names if (value := getattr(told, name)) is not None}
        return TgiOptions(
            **fields,
            temperature=(told.temperature or 1.0) if told.is_drawn else 0.0,
            seed=secrets.randbits(62) if told.seed is None and told.is_drawn else told.seed,
            stream=is_streamed,
            told=told,
            inputs=self.inputs,
            scores=(told.top_n_tokens or 0) if needs_tokens else None,
            scores_prompt=wants_prompt,
        )


class TgiRootBody(TgiBody):
    """The same on ``/``, where a field asks for a stream."""

    stream: bool | None = Field(None, description="Answer with server-sent events. Default: false.")


class TgiOptions(SamplingOptions):
    """What such a request asks our engine for; nobody sends it. ``scores``: best tokens told with each, if any is."""

    told: TgiParameters
    inputs: str
    scores: int | None = None
    scores_prompt: bool

    @property
    def prompt_param(self) -> str:
        return "inputs"

    @property
    def constraint(self) -> Constraint | None:
        return None if self.told.grammar is None else self.told.grammar.constraint

    @property
    def num_logprobs(self) -> int | None:
        return self.scores

    @property
    def num_prompt_logprobs(self) -> int | None:
        return 0 if self.scores_prompt else None

    def defaults(self, model: Any) -> SamplingDefaults:
        return SamplingDefaults(temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0)

    def length(self, settings: Settings) -> Length:
        return Length("max_new_tokens", self.told.max_new_tokens, DEFAULT_TOKENS)
