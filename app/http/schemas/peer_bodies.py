"""Bodies of the routes that peers have for encoders: vLLM, Cohere and Jina, text-embeddings-inference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.core.tasks.encoder_jobs import Cut, Side
from app.http.schemas.encoder_bodies import MAX_TEXTS, Inputs, PromptName, Text
from app.http.schemas.strict import StrictBody
from app.http.schemas.text_task_bodies import MAX_DOCUMENTS, Texts

Documents = Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)]
OneOrTwo = Annotated[list[Text], Field(min_length=1, max_length=2)]
TeiSide = Literal["left", "right", "Left", "Right"]


class VllmBody(StrictBody):
    """What vLLM's routes for encoders share."""

    model: str | None = Field(None, description="Name of the model. Default: the first for this task.")
    truncate_prompt_tokens: int | None = Field(
        None, ge=-1, description="Cut texts to so many tokens; -1: to the context. Default: nothing is cut."
    )
    truncation_side: Side = Field("right", description="The side that is cut.")
    use_activation: bool = Field(True, description="Scores; false: logits.")
    user: str | None = Field(None, description="Has no effect.")

    @property
    def cut(self) -> Cut | None:
        """How a text may be cut; None where none may."""
        if self.truncate_prompt_tokens is None:
            return None
        most = None if self.truncate_prompt_tokens == -1 else self.truncate_prompt_tokens
        return Cut(self.truncation_side, most, param="truncate_prompt_tokens")


class VllmClassifyBody(VllmBody):
    """vLLM's request to classify texts."""

    input: Text | Texts = Field(description="A text, or a list of texts.")

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class VllmScoreBody(VllmBody):
    """vLLM's request to score pairs: one text against many, or as many against as many."""

    text_1: Text | Documents = Field(description="A text, or a list of texts.")
    text_2: Text | Documents = Field(description="A text, or a list: of any length beside one text, else as many.")


class DocumentText(StrictBody):
    """A document as an object."""

    text: Text


class CohereRerankBody(StrictBody):
    """What the rerank routes of Cohere and Jina take."""

    query: Text = Field(description="What is asked.")
    documents: Annotated[list[Text | DocumentText], Field(min_length=1, max_length=MAX_DOCUMENTS, fail_fast=True)] = (
        Field(description="What may answer it: texts, or objects with `text`.")
    )
    model: str | None = Field(None, description="Name of the model. Default: the first for this task.")
    top_n: int | None = Field(None, ge=1, description="How many of the best come back. Default: all.")
    return_documents: bool = Field(False, description="Each result holds its document.")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description="Cohere: pairs are cut so that a document has at most so many tokens."
    )
    truncation: bool = Field(False, description="Jina: cut what does not fit the context; else that is refused.")

    @property
    def texts(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents]


class TeiBody(StrictBody):
    """What text-embeddings-inference's routes share."""

    truncate: bool = Field(False, description="Cut what does not fit the context; without it, that is refused.")
    truncation_direction: TeiSide = Field("right", description="The side that `truncate` cuts.")

    @property
    def cut(self) -> Cut | None:
        """How a text may be cut; None where none may."""
        return Cut(side_of(self.truncation_direction)) if self.truncate else None


class TeiRerankBody(TeiBody):
    """text-embeddings-inference's request to put texts in order."""

    query: Text = Field(description="What is asked.")
    texts: Documents = Field(description="What may answer it.")
    raw_scores: bool = Field(False, description="Logits instead of scores.")
    return_text: bool = Field(False, description="Each result holds its text.")


def side_of(direction: TeiSide) -> Side:
    """It has been written both ways."""
    return "left" if direction.lower() == "left" else "right"


class TeiEmbedBody(TeiBody):
    """text-embeddings-inference's request to turn texts into vectors."""

    inputs: Inputs = Field(description="A text, a list of texts, the token ids of one text, or a list of such.")
    normalize: bool = Field(True, description="Vectors of length 1, whatever the model's own are.")
    dimensions: int | None = Field(None, ge=1, description="So many of a vector's first entries.")
    prompt_name: PromptName | None = Field(None, description="Which of the model's prompts stands before each text.")


class TeiSentences(StrictBody):
    """A sentence, and those that are compared with it."""

    source_sentence: Text = Field(description="What the others are compared with.")
    sentences: Documents = Field(description="The others.")


class TeiSimilarityParameters(TeiBody):
    """How sentences become vectors."""

    prompt_name: PromptName | None = Field(None, description="Which of the model's prompts stands before each.")


class TeiSimilarityBody(StrictBody):
    """text-embeddings-inference's request to compare sentences."""

    inputs: TeiSentences = Field(description="A sentence and others.")
    parameters: TeiSimilarityParameters | None = Field(None, description="How to.")


class TeiPredictBody(TeiBody):
    """text-embeddings-inference's request to classify a text, a pair, or a list of lists of one or two texts."""

    inputs: Text | OneOrTwo | Annotated[list[OneOrTwo], Field(min_length=1, max_length=MAX_TEXTS, fail_fast=True)] = (
        Field(description="A text; a list of one text, or of two that are a pair; or a list of such lists.")
    )
    raw_scores: bool = Field(False, description="Logits instead of scores.")

    @property
    def is_batch(self) -> bool:
        return isinstance(self.inputs, list) and isinstance(self.inputs[0], list)

    @property
    def pairs(self) -> list[list[str]]:
        """Each text, alone or with the one that it is paired with."""
        if isinstance(self.inputs, str):
            return [[self.inputs]]
        of_batch = [one for one in self.inputs if isinstance(one, list)]
        return of_batch or [[one for one in self.inputs if isinstance(one, str)]]
