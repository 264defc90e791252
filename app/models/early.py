"""What a model's config tells of it without transformers, whose import takes seconds: refusals that are certain.

Looks at transformers' files, never into its modules. Where anything is in doubt nothing is said: the inference
thread asks again, with transformers' own tables. Master.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.core.model_tables import Task
from app.models.json_files import read_object

OTHER_TASKS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
)
# Where transformers lists the families that it has, in its versions 4 and 5.
TABLES = ("models/auto/auto_mappings.py", "models/auto/configuration_auto.py")


def check_early(folder: Path, task: Task | None, *, is_trusted: bool) -> None:
    """Raise ``ModelLoadError`` where the folder's model needs code that may not run, or is for a task not served."""
    if not (folder / "config.json").is_file():
        return
    config = read_object(folder / "config.json")
    classes: Any = config.get("auto_map")
    has_code = isinstance(classes, dict) and bool(classes)
    if has_code and not is_trusted and is_unknown_family(config.get("model_type")):
        raise ModelLoadError(own_code(str(folder), classes))
    if task is None and not (folder / "modules.json").exists():
        check_head(first_architecture(config))


def first_architecture(config: dict[str, Any]) -> str:
    """The class that the config names first; empty where it names none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def check_head(name: str) -> None:
    """Raise ``ModelLoadError`` for an architecture whose head is not served."""
    if name.endswith(OTHER_TASKS):
        raise ModelLoadError(f"{name} is not served: only text generation, fill-mask and embeddings are")


def own_code(source: str, classes: dict[str, Any]) -> str:
    """The line for a model that is Python code beside its weights."""
    files = sorted({str(name).split("--")[-1].split(".")[0] + ".py" for name in classes.values()})
    return (
        f"the model {source} is Python code of its own ({', '.join(files)}): read it, then allow it "
        "with FORKLIFT_TRUST_REMOTE_CODE=true"
    )


def is_unknown_family(model_type: object) -> bool:
    """Whether transformers certainly has no family of this name: its tables do not hold the word."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return False
    root = Path(next(iter(spec.submodule_search_locations)))
    try:
        text = "".join((root / name).read_text(encoding="utf-8") for name in TABLES if (root / name).is_file())
    except OSError:
        return False
    # A family that is everywhere: without it these are not the tables.
    return '"gpt2"' in text and f'"{model_type}"' not in text
