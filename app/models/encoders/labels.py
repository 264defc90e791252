"""The labels of a classifier, and from its logits to scores: as transformers' pipelines do it. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig
from typing_extensions import TypedDict

from app.core.errors import ModelLoadError
from app.core.tasks.task_table import TASKS
from app.models.checkpoint.loader import Checkpoint
from app.models.folder.sentence import Activation
from app.models.folder.tasks import entailment_label

Numbers = NDArray[np.float64]


class LabelScore(TypedDict):
    """A label and how well it fits."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Labels:
    """``activation`` makes scores of a text's logits, ``pair_activation`` the score of a pair of its only one.

    ``entailment`` is the label that says that one text follows from another; None where there is none.
    """

    names: tuple[str, ...]
    activation: Activation
    pair_activation: Activation
    entailment: int | None

    def scores(self, logits: Sequence[float], activation: Activation | None = None) -> list[float]:
        """A score for each label, in their order."""
        return [float(score) for score in activated(logits, activation or self.activation)]

    def ranked(
        self, logits: Sequence[float], top_k: int | None, activation: Activation | None = None
    ) -> list[LabelScore]:
        """The best labels first, as transformers' text-classification pipeline tells them."""
        pairs = zip(self.names, self.scores(logits, activation), strict=True)
        best = sorted(pairs, key=lambda pair: pair[1], reverse=True)[:top_k]
        return [{"label": label, "score": score} for label, score in best]

    def zero_shot(self, logits: Sequence[Sequence[float]], *, each_alone: bool) -> list[float]:
        """How well labels fit a text, by the pairs of the text with a sentence for each, ``(num_labels, num_classes)``.

        As transformers' zero-shot pipeline: entailment against contradiction for each label alone, else entailment of
        one label against the others'.
        """
        assert self.entailment is not None, "the load of a model for this task checked it"
        values = np.asarray(logits, dtype=np.float64)
        if not each_alone and len(logits) > 1:
            return [float(score) for score in softmax(values[:, self.entailment])]
        contradiction = -1 if self.entailment == 0 else 0
        return [float(score) for score in softmax(values[:, [contradiction, self.entailment]])[:, 1]]

    def pair_score(self, logits: Sequence[float], *, is_raw: bool = False) -> float:
        """How well the texts of a pair fit, by a model with one label."""
        return float(activated(logits, "none" if is_raw else self.pair_activation)[0])


def activated(logits: Sequence[float], activation: Activation) -> Numbers:
    """The logits of one text as scores ``(num_labels,)``."""
    values = np.asarray(logits, dtype=np.float64)
    match activation:
        case "sigmoid":
            return np.asarray(np.exp(-np.logaddexp(0.0, -values)))
        case "softmax":
            return softmax(values)
        case "none":
            return values


def softmax(values: Numbers) -> Numbers:
    """Over the last axis."""
    shares = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


def read_labels(checkpoint: Checkpoint) -> Labels:
    """What the config says of labels; none for a task without. Raises ``ModelLoadError`` where they do not fit it."""
    config = checkpoint.model.config
    if not TASKS[checkpoint.task].has_labels:
        return Labels((), "none", "none", None)
    names = tuple(_sent(str(config.id2label.get(index, f"LABEL_{index}"))) for index in range(config.num_labels))
    entailment = entailment_label(config)
    if not names:
        raise ModelLoadError("the config of the model has no labels")
    if checkpoint.task == "rerank" and len(names) != 1:
        raise ModelLoadError(f"a model for the task rerank has one label, this one has {len(names)}")
    if checkpoint.task == "zero-shot" and (entailment is None or not 0 <= entailment < len(names)):
        raise ModelLoadError('a model for the task zero-shot has a label whose name begins with "entail"')
    return Labels(names, _activation(config), checkpoint.pair_activation or "sigmoid", entailment)


def _sent(name: str) -> str:
    """``name`` as UTF-8 can carry it: JSON can spell half a surrogate pair, an answer cannot."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _activation(config: PretrainedConfig) -> Activation:
    """As transformers' text-classification pipeline chooses it."""
    match getattr(config, "problem_type", None):
        case "regression":
            return "none"
        case "multi_label_classification":
            return "sigmoid"
        case _:
            return "sigmoid" if config.num_labels == 1 else "softmax"
