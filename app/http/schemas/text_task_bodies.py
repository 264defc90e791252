"""Bodies of the native routes for tasks of texts: ``/classify``, ``/rerank`` and their like."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from app.http.schemas.encoder_bodies import MAX_TEXTS, Text
from app.http.schemas.strict import RecordId, StrictBody

# Each is a pass over the query and the document.
MAX_DOCUMENTS = 1000
MAX_TOP_K = 1000

Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
Side: TypeAlias = Literal["left", "right"]


class TextTaskBody(StrictBody):
    """What all of them take."""

    truncate: bool = Field(
        False, description="Cut what does not fit the context; without it, that is refused. Nothing is cut unasked."
    )
    truncation_direction: Side = Field("right", description="The side that `truncate` cuts.")
    recordid: RecordId | None = Field(None, description="Written to the log.")
    model: str | None = Field(None, description="Name of the model. Default: the first for this task.")

    @property
    def cut(self) -> Side | None:
        """The side on which a text may be cut; None where none may."""
        return self.truncation_direction if self.truncate else None


class ClassifyBody(TextTaskBody):
    """Texts, or pairs of texts, to be classified."""

    text: Text | Texts = Field(description="A text, or a list of texts.")
    text_pair: Text | Texts | None = Field(
        None, description="What each text is paired with, for models of pairs: as many as there are texts."
    )
    top_k: int = Field(1, ge=1, le=MAX_TOP_K, description="Labels for each text, best first.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(
        None, description="From logits to scores. Default: as the model's config says."
    )


class RerankBody(TextTaskBody):
    """A query, and the documents that are to be put in order by it."""

    query: Text = Field(description="What is asked.")
    documents: Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)] = Field(
        description="What may answer it."
    )
    top_n: int | None = Field(None, ge=1, description="How many of the best come back. Default: all.")
    return_documents: bool = Field(False, description="Each result holds its document.")
    raw_scores: bool = Field(False, description="Logits instead of scores.")
