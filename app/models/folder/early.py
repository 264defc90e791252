"""What a model's config tells of it without transformers, whose import takes seconds: refusals that are certain.

Looks at transformers' files, never into its modules. Where anything is in doubt nothing is said: the inference
thread asks again, with transformers' own tables. Master.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.core.settings import ModelPlan, Settings
from app.core.tasks.task_table import NOT_SERVED, tasks_of_head
from app.models.folder.json_files import read_object
from app.models.folder.model_folder import check_folder, require_folder
from app.models.folder.tokenizer_files import check_has_tokenizer
from app.models.folder.weights_fit import check_weights_fit

OTHER_TASKS = (
    "ForMultipleChoice",
    "ForNextSentencePrediction",
    "ForImageClassification",
    "ForObjectDetection",
    "ForSpeechSeq2Seq",
    "ForAudioClassification",
    "ForCTC",
)
# Where transformers lists the families that it has, in its versions 4 and 5.
TABLES = ("models/auto/auto_mappings.py", "models/auto/configuration_auto.py")
MODEL_TABLES = "models/auto/modeling_auto.py"
# Of the families that generate, make texts from texts or fill masks, and a family that is certainly in each table: any
# other has no head that is served.
HEADS = {
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": "bert",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": "t5",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES": "bert",
}


def check_models(settings: Settings) -> None:
    """Look at the folder of every model that is loaded at the start. Raises ``ModelLoadError``.

    Models on demand are left to those who ask for them; only a folder that is not there is a mistake at once.
    """
    for plan in settings.plans:
        require_folder(plan)
        if plan.settings.chat_template is not None:
            # Jinja is loaded only where there is a template to parse: a master needs none of it.
            from app.models.tokens.template_file import read_template

            read_template(Path(plan.settings.chat_template))
        if plan.load == "resident":
            check_folder(plan.settings.model)
            check_early(plan)


def check_early(plan: ModelPlan) -> None:
    """Raise ``ModelLoadError`` where the model certainly cannot be loaded, or is for a task not served."""
    folder = Path(plan.settings.model)
    if not (folder / "config.json").is_file():
        return
    config = read_object(folder / "config.json")
    _check_family(folder, config, is_trusted=plan.settings.trust_remote_code)
    if plan.task is None and not (folder / "modules.json").exists():
        check_head(first_architecture(config))
        _check_has_head(config)
    described = folder / "tokenizer_config.json"
    check_has_tokenizer(folder, config.get("model_type"), read_object(described) if described.exists() else {})
    check_weights_fit(folder, config)


def _check_family(folder: Path, config: dict[str, Any], *, is_trusted: bool) -> None:
    classes, family = config.get("auto_map"), config.get("model_type")
    has_code = isinstance(classes, dict) and bool(classes)
    if family is None or not is_unknown_family(family):
        return
    if not has_code:
        version = importlib.metadata.version("transformers")
        raise ModelLoadError(
            f"the model {folder} is of the family {family!r}, which transformers {version} does not have: "
            "a newer Forklift, or another model"
        )
    if not is_trusted and isinstance(classes, dict):
        raise ModelLoadError(own_code(str(folder), classes))


def _check_has_head(config: dict[str, Any]) -> None:
    """A family that neither generates nor fills masks has a head for something else, which only its name can tell."""
    family = str(config.get("model_type"))
    if tasks_of_head(first_architecture(config)) or config.get("auto_map") or not (text := _text_of((MODEL_TABLES,))):
        return
    tables = {name: re.search(rf"^{name} = OrderedDict\((.*?)^\)", text, re.S | re.M) for name in HEADS}
    # Without the known family these are not the tables.
    texts = [table[1] for name, table in tables.items() if table and f'("{HEADS[name]}", ' in table[1]]
    if len(texts) == len(HEADS) and not any(f'("{family}", ' in one for one in texts):
        raise ModelLoadError(NOT_SERVED.format(first_architecture(config) or family))


def first_architecture(config: dict[str, Any]) -> str:
    """The class that the config names first; empty where it names none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def check_head(name: str) -> None:
    """Raise ``ModelLoadError`` for an architecture whose head is not served."""
    if name.endswith(OTHER_TASKS):
        raise ModelLoadError(NOT_SERVED.format(name))


def own_code(source: str, classes: dict[str, Any]) -> str:
    """The line for a model that is Python code beside its weights."""
    files = sorted({str(name).split("--")[-1].split(".")[0] + ".py" for name in classes.values()})
    return (
        f"the model {source} is Python code of its own ({', '.join(files)}): read it, then allow it "
        "with FORKLIFT_TRUST_REMOTE_CODE=true"
    )


def is_unknown_family(model_type: object) -> bool:
    """Whether transformers certainly has no family of this name: its tables do not hold the word."""
    text = _text_of(TABLES)
    # A family that is everywhere: without it these are not the tables.
    return '"gpt2"' in text and f'"{model_type}"' not in text


def _text_of(names: Sequence[str]) -> str:
    """The files ``names`` of transformers, one after the other; empty where they cannot be read."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return ""
    root = Path(next(iter(spec.submodule_search_locations)))
    try:
        return "".join((root / name).read_text(encoding="utf-8") for name in names if (root / name).is_file())
    except OSError:
        return ""
