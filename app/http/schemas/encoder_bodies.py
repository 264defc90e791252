"""Bodies of ``/fill-mask`` and ``/v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from app.http.schemas.sampling_fields import TokenId
from app.http.schemas.strict import RecordId, StrictBody

MAX_TEXTS = 256
# Each holds a sequence: what one request makes us write must be bounded.
MAX_PROPOSALS = 10_000
# OpenAI's own bound.
MAX_INPUTS = 2048

Text = Annotated[str, StringConstraints(min_length=1)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class FillMaskBody(StrictBody):
    """Texts with masks."""

    text: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)] = Field(
        description="A text with the model's mask token, once or several times; or a list of such texts."
    )
    top_k: int = Field(5, ge=1, le=100, description="Proposals for each mask.")
    recordid: RecordId | None = Field(None, description="Written to the log; the answer is a list and cannot hold it.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")

    @property
    def texts(self) -> list[str]:
        return [self.text] if isinstance(self.text, str) else self.text


class EmbeddingsBody(StrictBody):
    """Texts, or their token ids, to be turned into vectors; OpenAI's fields."""

    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    ) = Field(description="A text, a list of texts, the token ids of one text, or a list of such.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="float: a list of numbers (default); base64: little-endian float32."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Only the model's own size: no checkpoint says that its vectors may be cut."
    )
    user: str | None = Field(None, description="Has no effect.")

    @property
    def inputs(self) -> list[str | list[int]]:
        """One entry per vector."""
        if isinstance(self.input, str):
            return [self.input]
        ids = [token for token in self.input if isinstance(token, int)]
        return [ids] if ids else [one for one in self.input if not isinstance(one, int)]
