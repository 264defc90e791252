"""Which task a checkpoint is for, from its config alone. Pure functions.

The architecture that a config names is looked up in transformers' own auto-class mappings; what
they do not know (remote code) is taken for a language model.
"""

from __future__ import annotations

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from app.core.tasks.task_table import Task, tasks_of_head
from app.models.folder.early import check_head


def detect_task(config: PretrainedConfig, *, is_sentence_model: bool) -> Task:
    """The task of a model with this ``config``. Raises ``ModelLoadError`` for heads that are not served.

    ``is_sentence_model``: the folder says, in sentence-transformers' form, how vectors are made.
    """
    name = str((config.architectures or [""])[0])
    of_head = tasks_of_head(name)
    if of_head:
        return of_head[0] if len(of_head) == 1 else _by_labels(config)
    if is_sentence_model:
        return "embeddings"
    check_head(name)
    if config.is_encoder_decoder and name in _classes(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        return "seq2seq"
    if name in _classes(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return "generate"
    if name in _classes(MODEL_FOR_MASKED_LM_MAPPING_NAMES) or name.endswith("ForMaskedLM"):
        return "fill-mask"
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "generate"
    return "embeddings" if name in _classes(MODEL_MAPPING_NAMES) else "fill-mask"


def _by_labels(config: PretrainedConfig) -> Task:
    """What a classifier of texts is for: one label scores pairs, one for entailment can be told any labels."""
    if config.num_labels == 1:
        return "rerank"
    return "classify" if entailment_label(config) is None else "zero-shot"


def entailment_label(config: PretrainedConfig) -> int | None:
    """The label that says that one text follows from another, as transformers' zero-shot pipeline finds it."""
    labels = getattr(config, "label2id", None)
    numbered = labels.items() if isinstance(labels, dict) else ()
    return next(
        (index for label, index in numbered if str(label).lower().startswith("entail") and type(index) is int), None
    )


def _classes(mapping: dict[str, object]) -> set[str]:
    """The class names of an auto mapping; some entries hold several."""
    return {
        name
        for names in mapping.values()
        for name in ((names,) if isinstance(names, str) else names)  # type: ignore[attr-defined]
    }
