"""Bodies of ``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from pydantic import Field

from app.http.schemas.sampling import TokenId
from app.http.schemas.strict import StrictBody


class TokenizeBody(StrictBody):
    """A text to be cut into tokens."""

    text: str = Field(description="The text.")
    add_special_tokens: bool = Field(True, description="With the special tokens that every prompt gets.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")


class DetokenizeBody(StrictBody):
    """Tokens to be turned into text."""

    tokens: list[TokenId] = Field(fail_fast=True, description="Token ids of this model.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")
