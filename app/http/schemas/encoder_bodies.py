"""Bodies of ``/fill-mask`` and ``/v1/embeddings``."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

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

Inputs: TypeAlias = (
    Text
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
)
PromptName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


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

    input: Inputs = Field(description="A text, a list of texts, the token ids of one text, or a list of such.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="float: a list of numbers (default); base64: little-endian float32."
    )
    dimensions: int | None = Field(
        None,
        ge=1,
        description="So many of a vector's first entries, again of length 1 where the model's are; as made for by few.",
    )
    prompt_name: PromptName | None = Field(
        None, description="Which of the model's own prompts stands before each text. Default: as the model says."
    )
    user: str | None = Field(None, description="Has no effect.")

    @property
    def inputs(self) -> list[str | list[int]]:
        """One entry per vector."""
        return listed(self.input)


def listed(given: Inputs) -> list[str | list[int]]:
    """One entry per vector."""
    if isinstance(given, str):
        return [given]
    ids = [token for token in given if isinstance(token, int)]
    return [ids] if ids else [one for one in given if not isinstance(one, int)]
