"""Bodies as Hugging Face's inference API has them, which ``huggingface_hub.InferenceClient`` sends: ``inputs`` and
``parameters``. Each is read as the body of our own route."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from app.http.schemas.encoder_bodies import MAX_TEXTS, FillMaskBody, Text
from app.http.schemas.strict import StrictBody
from app.http.schemas.text_task_bodies import (
    MAX_TOP_K,
    AnswerBody,
    ClassifyBody,
    EntitiesBody,
    LabelTexts,
    Strategy,
    Texts,
    ZeroShotBody,
)


def given(parameters: StrictBody | None) -> dict[str, Any]:
    """The parameters that were sent."""
    return {} if parameters is None else parameters.model_dump(exclude_unset=True)


class HubClassifyParameters(StrictBody):
    """Options of text classification."""

    top_k: int | None = Field(None, ge=1, le=MAX_TOP_K, description="Labels, best first. Default: all.")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(None, description="From logits to scores.")


class HubClassifyBody(StrictBody):
    """A text, or a list of texts, to be classified."""

    inputs: Text | Texts
    parameters: HubClassifyParameters | None = None

    def own(self) -> ClassifyBody:
        """The same for our route."""
        return ClassifyBody.model_validate({"text": self.inputs, "top_k": MAX_TOP_K, **given(self.parameters)})


class HubZeroShotParameters(StrictBody):
    """Labels, and options of zero-shot classification."""

    candidate_labels: LabelTexts
    multi_label: bool | None = None
    hypothesis_template: Annotated[str, Field(max_length=1000)] | None = None


class HubZeroShotBody(StrictBody):
    """A text, and labels that the model was not trained with."""

    inputs: Text
    parameters: HubZeroShotParameters

    def own(self) -> ZeroShotBody:
        """The same for our route."""
        return ZeroShotBody.model_validate({"text": self.inputs, **given(self.parameters)})


class HubEntitiesParameters(StrictBody):
    """Options of token classification."""

    aggregation_strategy: Strategy | None = None
    ignore_labels: Annotated[list[str], Field(max_length=MAX_TOP_K)] | None = None
    stride: int | None = Field(None, ge=0)


class HubEntitiesBody(StrictBody):
    """A text, or a list of texts, in which entities are to be found."""

    inputs: Text | Texts
    parameters: HubEntitiesParameters | None = None

    def own(self) -> EntitiesBody:
        """The same for our route."""
        return EntitiesBody.model_validate({"text": self.inputs, **given(self.parameters)})


class HubQuestion(StrictBody):
    """A question and the text that may hold its answer."""

    question: Text
    context: Text


class HubAnswerParameters(StrictBody):
    """Options of question answering."""

    top_k: int | None = Field(None, ge=1, le=100)
    doc_stride: int | None = Field(None, ge=0)
    max_seq_len: int | None = Field(None, ge=1)
    max_answer_len: int | None = Field(None, ge=1, le=512)
    handle_impossible_answer: bool | None = None


class HubAnswerBody(StrictBody):
    """A question to be answered with words of a text."""

    inputs: HubQuestion
    parameters: HubAnswerParameters | None = None

    def own(self) -> AnswerBody:
        """The same for our route."""
        return AnswerBody.model_validate({**self.inputs.model_dump(), **given(self.parameters)})


class HubFillMaskParameters(StrictBody):
    """Options of masks to be filled."""

    top_k: int | None = Field(None, ge=1, le=100)


class HubFillMaskBody(StrictBody):
    """A text with masks, or a list of such."""

    inputs: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)]
    parameters: HubFillMaskParameters | None = None

    def own(self) -> FillMaskBody:
        """The same for our route."""
        return FillMaskBody.model_validate({"text": self.inputs, **given(self.parameters)})
