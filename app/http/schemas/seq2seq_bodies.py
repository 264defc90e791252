"""Bodies of ``/translate`` and ``/summarize``, and Hugging Face's forms of the same."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError
from app.core.work.sampling_params import SamplingDefaults, SamplingParams
from app.http.schemas.encoder_bodies import Text
from app.http.schemas.hub_bodies import given
from app.http.schemas.sampling_fields import MIN_TEMPERATURE
from app.http.schemas.strict import StopStrings, StrictBody
from app.http.schemas.text_task_bodies import TextTaskBody

# Each takes a place.
MAX_SOURCES = 64
MAX_BEAMS = 16

Language = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Sources = Annotated[list[Text], Field(min_length=1, max_length=MAX_SOURCES, fail_fast=True)]
# Fields that go to transformers' generate under their own names.
SETTINGS = (
    *("min_new_tokens", "num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size"),
    "repetition_penalty",
)


class DecodingFields(StrictBody):
    """How a text is made; what is left out is as the checkpoint's own settings say."""

    max_new_tokens: int | None = Field(
        None, ge=1, description="Tokens at most. Default: the checkpoint's, else the server's DEFAULT_NEW_TOKENS."
    )
    min_new_tokens: int | None = Field(None, ge=0, description="Tokens before which the text does not end.")
    num_beams: int | None = Field(None, ge=1, le=MAX_BEAMS, description="Texts searched at once; 1 can be streamed.")
    length_penalty: float | None = Field(None, ge=-10, le=10, description="Of beams: above 0 longer texts win.")
    early_stopping: bool | None = Field(None, description="Of beams: end as soon as there are enough whole texts.")
    no_repeat_ngram_size: int | None = Field(None, ge=0, le=1000, description="No sequence of so many tokens twice.")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=100, description="Above 1 discourages tokens that the text has."
    )
    do_sample: bool | None = Field(None, description="Draw tokens, with one beam; a temperature above 0 does so too.")
    temperature: float | None = Field(
        None, ge=0, le=100, description=f"0 draws nothing; otherwise at least {MIN_TEMPERATURE}."
    )
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="Of drawing: best tokens kept; 0 is off.")
    top_p: float | None = Field(None, ge=0, le=1, description="Of drawing: mass of the best tokens kept; 1 is off.")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of drawing: same seed, same text.")

    @model_validator(mode="after")
    def _check_drawing(self) -> DecodingFields:
        if self.temperature is not None and 0 < self.temperature < MIN_TEMPERATURE:
            text = f"temperature: should be 0 or at least {MIN_TEMPERATURE}"
            raise InvalidParameterError(text, param="temperature")
        if self.do_sample is not None and self.temperature is not None and self.do_sample != (self.temperature > 0):
            text = f"temperature: {self.temperature} contradicts do_sample"
            raise InvalidParameterError(text, param="temperature")
        if self.is_drawn and (self.num_beams or 1) > 1:
            raise InvalidParameterError("num_beams: tokens are drawn with one beam", param="num_beams")
        return self

    @property
    def is_drawn(self) -> bool | None:
        """Whether tokens are drawn; None: as the checkpoint says."""
        return self.do_sample if self.temperature is None else self.temperature > 0

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the checkpoint's settings, under transformers' names."""
        return {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}

    def params(self, own: SamplingDefaults, stop: list[str] | None = None) -> SamplingParams:
        """What is decided token by token; ``own``: the checkpoint's. The bound is set by who knows the model."""
        temperature = (
            0.0 if self.is_drawn is False else self.temperature or own.temperature or float(bool(self.is_drawn))
        )
        return SamplingParams(
            max_new_tokens=0,
            temperature=temperature,
            top_k=own.top_k if self.top_k is None else self.top_k,
            top_p=own.top_p if self.top_p is None else self.top_p,
            seed=self.seed,
            stop=tuple(stop or ()),
        )


class ConversionBody(TextTaskBody, DecodingFields):
    """Texts of which others are made."""

    text: Text | Sources = Field(description="A text, or a list of texts: each takes a place.")
    stop: StopStrings | None = Field(None, description="Strings that end the text; they are not part of it.")
    stream: bool | None = Field(None, description="Answer with server-sent events; with beams in one piece.")

    @property
    def texts(self) -> list[str]:
        return [self.text] if isinstance(self.text, str) else self.text


class TranslateBody(ConversionBody):
    """Texts to be translated."""

    src_lang: Language | None = Field(None, description="Language of the texts, as the model names it.")
    tgt_lang: Language | None = Field(None, description="Language to translate into, as the model names it.")


class SummarizeBody(ConversionBody):
    """Texts to be summarized."""


class HubDecoding(DecodingFields):
    """``generate_parameters``: settings under transformers' names."""

    max_length: int | None = Field(None, ge=2, description="Tokens at most, with the one that the decoder begins with.")
    min_length: int | None = Field(None, ge=0, description="Tokens at least, counted in the same way.")

    def own(self) -> dict[str, Any]:
        """The same as fields of our routes. Raises ``InvalidParameterError`` for two names of one bound."""
        fields = given(self)
        for name, other in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
            if (length := fields.pop(name, None)) is not None:
                if other in fields:
                    raise InvalidParameterError(f"{name}: cannot be sent together with {other}", param=name)
                fields[other] = max(length - 1, 0)
        return fields


class HubConversionParameters(StrictBody):
    """Options of translation and summarization."""

    clean_up_tokenization_spaces: Literal[False] | None = Field(None, description="Spaces stay as they are.")
    truncation: Literal["do_not_truncate", "longest_first", "only_first"] | None = None
    generate_parameters: HubDecoding | None = None

    def own(self) -> dict[str, Any]:
        """The same as fields of our routes."""
        fields = {"truncate": self.truncation in ("longest_first", "only_first")}
        return fields | (self.generate_parameters.own() if self.generate_parameters else {})


class HubTranslateParameters(HubConversionParameters):
    """Options of translation."""

    src_lang: Language | None = None
    tgt_lang: Language | None = None

    def own(self) -> dict[str, Any]:
        return {**super().own(), "src_lang": self.src_lang, "tgt_lang": self.tgt_lang}


class HubTranslateBody(StrictBody):
    """A text, or a list of texts, to be translated."""

    inputs: Text | Sources
    parameters: HubTranslateParameters | None = None

    def own(self) -> TranslateBody:
        """The same for our route."""
        return TranslateBody.model_validate({"text": self.inputs, **(self.parameters.own() if self.parameters else {})})


class HubSummarizeBody(StrictBody):
    """A text, or a list of texts, to be summarized."""

    inputs: Text | Sources
    parameters: HubConversionParameters | None = None

    def own(self) -> SummarizeBody:
        """The same for our route."""
        return SummarizeBody.model_validate({"text": self.inputs, **(self.parameters.own() if self.parameters else {})})
