"""Bodies of ``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from pydantic import Field, model_validator

from app.http.schemas.sampling_fields import TokenId
from app.http.schemas.strict import StrictBody, require_one


class TokenizeBody(StrictBody):
    """A text to be cut into tokens."""

    text: str | None = Field(None, description="The text.")
    content: str | None = Field(None, description="llama.cpp's name for text.")
    add_special_tokens: bool = Field(True, description="With the special tokens that every prompt gets.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")

    @model_validator(mode="after")
    def _one_text(self) -> TokenizeBody:
        require_one(self, "text", "content")
        return self

    @property
    def given(self) -> str:
        """The text under whichever name it came."""
        return (self.content if self.text is None else self.text) or ""


class DetokenizeBody(StrictBody):
    """Tokens to be turned into text."""

    tokens: list[TokenId] = Field(fail_fast=True, description="Token ids of this model.")
    model: str | None = Field(None, description="Name of the model. Default: the one that is served.")
