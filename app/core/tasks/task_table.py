"""The tasks that models are served for, one row each. Pure data: knows neither torch nor transformers, nor any route.

A further task of encoders is a row here, what an encoder reads off a pass (``app/engine/encoding/encoder_heads.py``),
and its routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal[
    "generate", "seq2seq", "fill-mask", "embeddings", "classify", "rerank", "zero-shot", "entities", "answer"
]
SEQUENCE_HEAD = "ForSequenceClassification"
SEQUENCE_CLASS = "AutoModelForSequenceClassification"


@dataclass(frozen=True, slots=True)
class TaskKind:
    """``does`` completes "the model does not ..."; ``auto_class`` is transformers' class that loads such a model.

    ``head`` is how the names of its architectures end, where that alone tells the task or a few that share it;
    ``also_by``: tasks whose models can do this one as well; ``has_labels``: the config names what its logits mean.
    """

    does: str
    auto_class: str
    head: str | None = None
    also_by: tuple[Task, ...] = ()
    has_labels: bool = False


TASKS: dict[Task, TaskKind] = {
    "generate": TaskKind("generate text", "AutoModelForCausalLM"),
    "seq2seq": TaskKind("make texts from texts (as translators do)", "AutoModelForSeq2SeqLM"),
    "fill-mask": TaskKind("fill masks", "AutoModelForMaskedLM"),
    "embeddings": TaskKind("make embeddings", "AutoModel"),
    "classify": TaskKind("classify texts", SEQUENCE_CLASS, SEQUENCE_HEAD, ("rerank", "zero-shot"), has_labels=True),
    "rerank": TaskKind("score pairs of texts", SEQUENCE_CLASS, SEQUENCE_HEAD, has_labels=True),
    "zero-shot": TaskKind("classify by a request's own labels", SEQUENCE_CLASS, SEQUENCE_HEAD, has_labels=True),
    "entities": TaskKind("find entities", "AutoModelForTokenClassification", "ForTokenClassification", has_labels=True),
    "answer": TaskKind("answer questions about a text", "AutoModelForQuestionAnswering", "ForQuestionAnswering"),
}
NOT_SERVED = f"{{}} is not served: the tasks that are: {', '.join(TASKS)}"


def can_serve(task: Task | None, wanted: Task | None) -> bool:
    """Whether a model for ``task`` does what ``wanted`` asks for; None is any task, or one that is not known yet."""
    return task is None or wanted in (None, task) or (wanted is not None and task in TASKS[wanted].also_by)


def tasks_of_head(architecture: str) -> list[Task]:
    """The tasks that an architecture of this name can be for, as far as the end of its name tells."""
    return [task for task, kind in TASKS.items() if kind.head is not None and architecture.endswith(kind.head)]
