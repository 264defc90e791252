"""Fields that OpenAI's two generating routes share, with OpenAI's defaults.

Extras of other servers (top_k, min_p, ...) keep their usual names. Hints, which may make OpenAI's
service faster, cheaper or more talkative and promise nothing, are taken and have no effect; values
that would ask for something that we do not do are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError
from app.core.work.sampling_params import SamplingDefaults
from app.http.schemas.llama_cpp_fields import LlamaCppFields
from app.http.schemas.sampling_fields import SamplingOptions
from app.http.schemas.strict import StrictBody, bounded_size

if TYPE_CHECKING:
    from app.models.text_model import TextModel

MAX_NOTES = 16

NoteText = Annotated[str, StringConstraints(max_length=512)]
# What a note holds is the caller's, nulls included.
Notes = Annotated[dict[str, NoteText | None], Field(max_length=MAX_NOTES), bounded_size(MAX_NOTES)]
NO_EFFECT = "A hint; has no effect."
# What silence means on ``/v1``, whatever the model's own defaults are.
DEFAULTS = SamplingDefaults(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0)


class StreamOptions(StrictBody):
    """What a stream tells beside its text."""

    include_usage: bool | None = Field(None, description="A last chunk with no choices tells the usage.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk tells the usage so far.")
    include_obfuscation: Literal[False] | None = Field(None, description="Chunks are not padded.")


class OpenAIOptions(LlamaCppFields, SamplingOptions):
    """How to generate, on ``/v1``: temperature 1 where the request is silent."""

    least_tokens_param: ClassVar[str] = "min_tokens"

    seed: int | None = Field(
        None,
        ge=-(2**63),
        lt=2**63,
        description="Same seed, same request, same settings: same output. The choice of index i uses seed + i.",
    )
    min_tokens: int | None = Field(None, ge=0, description="Tokens before which no end token is generated.")
    stream_options: StreamOptions | None = Field(None, description="With stream only.")
    user: NoteText | None = Field(None, description=NO_EFFECT)
    safety_identifier: NoteText | None = Field(None, description=NO_EFFECT)
    prompt_cache_key: NoteText | None = Field(None, description=NO_EFFECT)
    prompt_cache_retention: NoteText | None = Field(None, description=NO_EFFECT)
    service_tier: NoteText | None = Field(None, description=f"{NO_EFFECT} There is one tier.")
    metadata: Notes | None = Field(None, description=NO_EFFECT)
    store: Literal[False] | None = Field(None, description="Nothing is stored.")

    @model_validator(mode="after")
    def _stream_options_with_stream(self) -> OpenAIOptions:
        if self.stream_options is not None and not self.stream:
            raise InvalidParameterError("stream_options: only with stream", param="stream_options")
        return self

    @property
    def has_usage_chunk(self) -> bool:
        """Whether a stream ends with a chunk that tells the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def has_usage_throughout(self) -> bool:
        """Whether each chunk tells the usage so far."""
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def least_tokens(self) -> int:
        return self.min_tokens or 0

    def defaults(self, model: TextModel) -> SamplingDefaults:
        return DEFAULTS
