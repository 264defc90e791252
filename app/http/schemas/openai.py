"""Fields that OpenAI's two generating routes share, with OpenAI's defaults.

Extras of other servers (top_k, min_p, ...) keep their usual names. Fields that only describe the
request (``user``, ``metadata``) are taken and have no effect; values of others that would ask for
something that we do not do are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError
from app.http.backend import SamplingDefaults, TextModel
from app.http.schemas.sampling import SamplingOptions
from app.http.schemas.strict import StrictBody

NoteText = Annotated[str, StringConstraints(max_length=512)]


@dataclass(frozen=True, slots=True)
class OpenAIDefaults:
    """What silence means on ``/v1``, whatever the model's own defaults are."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class StreamOptions(StrictBody):
    """What a stream tells beside its text."""

    include_usage: bool | None = Field(None, description="A last chunk with no choices tells the usage.")


class OpenAIOptions(SamplingOptions):
    """How to generate, on ``/v1``: temperature 1 where the request is silent."""

    least_tokens_param: ClassVar[str] = "min_tokens"

    min_tokens: int | None = Field(None, ge=0, description="Tokens before which no end token is generated.")
    stream_options: StreamOptions | None = Field(None, description="With stream only.")
    user: NoteText | None = Field(None, description="Has no effect.")
    metadata: Annotated[dict[str, NoteText], Field(max_length=16)] | None = Field(None, description="Has no effect.")
    store: Literal[False] | None = Field(None, description="Nothing is stored.")
    service_tier: Literal["auto", "default"] | None = Field(None, description="There is one tier.")

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
    def least_tokens(self) -> int:
        return self.min_tokens or 0

    def defaults(self, model: TextModel) -> SamplingDefaults:
        return OpenAIDefaults()
