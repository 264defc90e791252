"""Which of the three tasks a checkpoint is for, from its config alone. Pure functions.

The architecture that a config names is looked up in transformers' own auto-class mappings; what
they do not know (remote code) is taken for a language model.
"""

from __future__ import annotations

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from app.core.model_tables import Task
from app.models.folder.early import check_head


def detect_task(config: PretrainedConfig, *, is_sentence_model: bool) -> Task:
    """The task of a model with this ``config``. Raises ``ModelLoadError`` for heads that are not served.

    ``is_sentence_model``: the folder says, in sentence-transformers' form, how vectors are made.
    """
    if is_sentence_model:
        return "embeddings"
    name = str((config.architectures or [""])[0])
    check_head(name)
    if name in _classes(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return "generate"
    if name in _classes(MODEL_FOR_MASKED_LM_MAPPING_NAMES) or name.endswith("ForMaskedLM"):
        return "fill-mask"
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return "generate"
    return "embeddings" if name in _classes(MODEL_MAPPING_NAMES) else "fill-mask"


def _classes(mapping: dict[str, object]) -> set[str]:
    """The class names of an auto mapping; some entries hold several."""
    return {
        name
        for names in mapping.values()
        for name in ((names,) if isinstance(names, str) else names)  # type: ignore[attr-defined]
    }
