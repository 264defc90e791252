"""What can be told of a model folder from its files alone: what is missing, cut short or of the wrong kind.

Reads names, sizes, small files and headers, never the weights. Raises ``ModelLoadError`` with one line
that names the file. No torch: the master looks before it forks, a worker looks again before each load.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.core.settings import ModelPlan
from app.models.checkpoint.from_hub.hub_ids import check_hub_id
from app.models.folder.config_values import check_config
from app.models.folder.gguf.gguf_folder import check_gguf, gguf_file
from app.models.folder.headers import check_weight_file
from app.models.folder.json_files import (
    MAX_TOKENIZER_BYTES,
    parse_json,
    read_bytes,
    read_object,
    require_shallow,
    unreadable,
)
from app.models.folder.tokenizer_files import check_vocabulary

INDEX = "model.safetensors.index.json"
SENTENCEPIECE_NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")
# Small files that a library walks as an object.
CONFIGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
# Other files that the tokenizer's classes open.
TOKENIZER_FILES = ("vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", "modules.json", *SENTENCEPIECE_NAMES)
OTHER_WEIGHTS = {
    ("*.bin", "*.pt", "*.pth", "*.ckpt"): "a pickle file, which is never loaded",
    ("*.h5", "*.msgpack", "*.onnx", "onnx/*.onnx"): "of another framework: save the model with transformers and torch",
}
# Hints look at so many entries of a folder.
MAX_LISTED = 200


def require_folder(plan: ModelPlan) -> None:
    """Raise ``ModelLoadError`` for a model on demand that is no folder: a hub's files are not here to be measured."""
    if plan.load == "on_demand" and not Path(plan.settings.model).exists():
        raise ModelLoadError(f'[{plan.name}] load = "on_demand" needs a model folder, {plan.settings.model} is none')


def check_folder(source: str) -> None:
    """Name what is missing or broken when ``source`` is a path; hub ids are left to transformers."""
    folder = Path(source)
    if not _exists(folder):
        if source.startswith(("/", ".", "~")) or source.count("/") != 1:
            raise ModelLoadError(f"the model folder {source} does not exist{_link_hint(folder)}{_home_hint(source)}")
        check_hub_id(source)
        return
    if (file := gguf_file(source)) is not None:
        check_gguf(file, is_installed=is_installed("gguf"))
        return
    if not folder.is_dir():
        raise ModelLoadError(f"the model {source} is {_kind_hint(folder)}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ModelLoadError(f"the model folder {source} cannot be read: permission denied for user {os.geteuid()}")
    if not os.path.lexists(folder / "config.json"):
        raise ModelLoadError(f"the model folder {source} has no config.json{_content_hint(folder)}")
    _check_small_files(folder)
    for path in weight_files(folder):
        check_weight_file(path)
    check_sentencepiece(folder)


def _exists(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError as error:
        raise unreadable(folder, error) from None


def _link_hint(folder: Path) -> str:
    return f"; it is a link to {folder.readlink()}" if folder.is_symlink() else ""


def _home_hint(source: str) -> str:
    return "; only a shell knows ~: write the whole path" if source.startswith("~") else ""


def _kind_hint(path: Path) -> str:
    if path.suffix == ".safetensors":
        return f"a file of weights: MODEL is the folder that holds it with its config.json, {path.absolute().parent}"
    return "no folder: MODEL is a folder as transformers saves it"


def _content_hint(folder: Path) -> str:
    """What the folder holds instead, as far as that helps."""
    names = sorted(entry.name for entry, _ in zip(os.scandir(folder), range(MAX_LISTED), strict=False))
    if "adapter_config.json" in names:
        return "; it is an adapter: merge it into its model (PEFT's merge_and_unload) and save that"
    if "model_index.json" in names:
        return "; it is a pipeline of diffusers, which is not served"
    inner = [name for name in names if (folder / name / "config.json").is_file()]
    inner += [str(path.parent.relative_to(folder)) for path in folder.glob("snapshots/*/config.json")]
    return f"; {folder / inner[0]} has one" if inner else ""


def _check_small_files(folder: Path) -> None:
    """Every one that is there can be read, is what its name says, and holds values that can be meant."""
    configs = {name: _check_config_file(folder / name) for name in CONFIGS if os.path.lexists(folder / name)}
    config = configs["config.json"]
    if os.path.lexists(path := folder / "tokenizer.json"):
        check_vocabulary(path, read_object(path, MAX_TOKENIZER_BYTES), config)
    for name in TOKENIZER_FILES:
        if os.path.lexists(path := folder / name):
            content = read_bytes(path, MAX_TOKENIZER_BYTES)
            if path.suffix == ".json":
                parse_json(path, content)
    if os.path.lexists(folder / "adapter_config.json") and is_installed("peft"):
        raise ModelLoadError(f"the model folder {folder} has an adapter_config.json, which leads to another model")


def _check_config_file(path: Path) -> dict[str, Any]:
    config = read_object(path)
    require_shallow(path, config)
    check_config(path, config)
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files that ``from_pretrained`` will read: a GGUF file, one of safetensors, or the shards of its index."""
    if (file := gguf_file(str(folder))) is not None:
        return [file]
    if os.path.lexists(index := folder / INDEX) and not os.path.lexists(folder / "model.safetensors"):
        return _shards(index)
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ModelLoadError(f"the model folder {folder} has no *.safetensors weights{_weights_hint(folder)}")
    return found


def _weights_hint(folder: Path) -> str:
    """What the folder holds instead of weights that can be read."""
    for patterns, what in OTHER_WEIGHTS.items():
        if found := sorted(path.name for pattern in patterns for path in folder.glob(pattern)):
            return f"; {found[0]} is {what}"
    return ""


def _shards(index: Path) -> list[Path]:
    content = read_bytes(index, MAX_TOKENIZER_BYTES)
    try:
        map_of_weights = parse_json(index, content)["weight_map"]
    except (ModelLoadError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{index} is not an index of weights") from error
    if not isinstance(map_of_weights, dict) or not all(map(_is_file_name, map_of_weights.values())):
        raise ModelLoadError(f"{index} is not an index of weights")
    names = sorted(set(map_of_weights.values()))
    missing = [name for name in names if not os.path.lexists(index.parent / name)]
    if missing:
        count = f"{len(missing)} of {len(names)} weight files"
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelLoadError(f"the model folder {index.parent} lacks {count}: {shown}")
    return [index.parent / name for name in names]


def _is_file_name(name: object) -> bool:
    """A shard lies in the folder itself: an index cannot lead elsewhere."""
    return isinstance(name, str) and bool(name) and not name.startswith(("/", "..")) and "\0" not in name


def check_sentencepiece(folder: Path) -> None:
    """Say which packages are missing: transformers takes the file for another kind and names another one."""
    files = [name for name in SENTENCEPIECE_NAMES if (folder / name).is_file()]
    if not files or (folder / "tokenizer.json").is_file():
        return
    missing = [name for name in ("sentencepiece", "google.protobuf") if not is_installed(name)]
    if missing:
        raise ModelLoadError(
            f"the tokenizer of {folder} is a sentencepiece model ({files[0]}) and {missing[0]} is not installed: "
            "pip install 'forklift-serve[sentencepiece]'"
        )


def is_installed(module: str) -> bool:
    """Whether ``module`` can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
