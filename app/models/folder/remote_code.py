"""Python code that lies beside the weights: whether a model needs it, before transformers asks. Inference thread."""

from __future__ import annotations

from pathlib import Path

from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from app.core.errors import ModelLoadError
from app.models.folder.early import own_code
from app.models.folder.json_files import read_object


def check_code(source: str, *, is_trusted: bool) -> None:
    """Raise ``ModelLoadError`` where a folder's model exists only as code of its own and may not run it.

    A family that transformers has is loaded from there, whatever code lies beside it.
    """
    path = Path(source) / "config.json"
    if is_trusted or not path.is_file():
        return
    try:
        config = read_object(path)
        classes = dict(config.get("auto_map") or {})
    except (ModelLoadError, ValueError, TypeError) as error:
        raise ModelLoadError(f"{path} is not a model's configuration") from error
    if classes and config.get("model_type") not in CONFIG_MAPPING_NAMES:
        raise ModelLoadError(own_code(source, classes))
