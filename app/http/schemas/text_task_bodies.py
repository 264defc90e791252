"""Bodies of the native routes for tasks of texts: ``/classify``, ``/rerank`` and their like."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from app.core.tasks.encoder_jobs import Cut, Side
from app.http.schemas.encoder_bodies import MAX_TEXTS, Text
from app.http.schemas.strict import RecordId, StrictBody

# Each is a pass over the query and the document.
MAX_DOCUMENTS = 1000
MAX_TOP_K = 1000
# Texts times labels: each is a pass.
MAX_PAIRS = 1000

LabelText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
LabelTexts = Annotated[list[LabelText], Field(min_length=1, max_length=MAX_PAIRS, fail_fast=True)]
Strategy: TypeAlias = Literal["none", "simple", "first", "average", "max"]

Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]


class TextTaskBody(StrictBody):
    """What all of them take."""

    truncate: bool = Field(
        False, description="Cut what does not fit the context; without it, that is refused. Nothing is cut unasked."
    )
    truncation_direction: Side = Field("right", description="The side that `truncate` cuts.")
    recordid: RecordId | None = Field(None, description="Written to the log.")
    model: str | None = Field(None, description="Name of the model. Default: the first for this task.")

    @property
    def cut(self) -> Cut | None:
        """How a text may be cut; None where none may."""
        return Cut(self.truncation_direction) if self.truncate else None


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


class ZeroShotBody(TextTaskBody):
    """Texts, and labels that the model was not trained with."""

    text: Text | Texts = Field(description="A text, or a list of texts.")
    candidate_labels: Text | LabelTexts = Field(description="A list of labels, or one string with commas between them.")
    hypothesis_template: Annotated[str, StringConstraints(max_length=1000)] = Field(
        "This example is {}.", description="A sentence that is true where a label fits, with `{}` for the label."
    )
    multi_label: bool = Field(False, description="Each label by itself; else their scores sum to 1.")

    @property
    def labels(self) -> list[str]:
        if isinstance(self.candidate_labels, str):
            return [label for part in self.candidate_labels.split(",") if (label := part.strip())]
        return self.candidate_labels


class EntitiesBody(TextTaskBody):
    """Texts in which entities are to be found."""

    text: Text | Texts = Field(description="A text, or a list of texts.")
    aggregation_strategy: Strategy = Field(
        "none", description="none: a label for each token; simple: tokens of one entity together; others: by words."
    )
    ignore_labels: Annotated[list[str], Field(max_length=MAX_TOP_K)] = Field(["O"], description="Not told.")
    stride: int | None = Field(
        None, ge=0, description="Read a text of any length in parts that have so many tokens in common."
    )


class AnswerBody(StrictBody):
    """A question, and the text that may hold its answer."""

    question: Text = Field(description="What is asked.")
    context: Text = Field(description="A text of any length; it is read in parts.")
    top_k: int = Field(1, ge=1, le=100, description="Answers, best first: above 1 a list.")
    doc_stride: int | None = Field(
        None, ge=0, description="Tokens that two parts have in common. Default: 128, at most half a part."
    )
    max_seq_len: int | None = Field(None, ge=1, description="Tokens of a part, question included. Default: 384.")
    max_answer_len: int = Field(15, ge=1, le=512, description="Tokens of an answer.")
    handle_impossible_answer: bool = Field(False, description="An empty answer is one of those that are compared.")
    recordid: RecordId | None = Field(None, description="Written to the log.")
    model: str | None = Field(None, description="Name of the model. Default: the first for this task.")
