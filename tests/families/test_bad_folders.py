"""A folder that lacks something, or has it broken: one line that says what, for every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.folder.early import check_models
from tests.families.folders import FOLDERS

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "spiece.model")


def load(folder: Path, **settings: object) -> Checkpoint:
    named = {f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()}
    return load_checkpoint(load_settings({"FORKLIFT_MODEL": str(folder), **named}), lambda _: None)


def without_tokenizer(folder: Path) -> str:
    for pattern in TOKENIZER_FILES:
        for path in folder.glob(pattern):
            path.unlink()
    return "tokenizer"


def without_a_shard(folder: Path) -> str:
    """In two files first, as large checkpoints come."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(str(index).replace("'", '"'))
    (folder / "model.safetensors").unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()
    return "lacks 1 of 2 weight files: model-00002-of-00002.safetensors"


def pickle_only(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return "pytorch_model.bin is a pickle file, which is never loaded"


def corrupt(folder: Path) -> str:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[8:40] = b"\xff" * 32
    weights.write_bytes(content)
    return "have a broken header"


def cut_short(folder: Path) -> str:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return "are cut short"


DEFECTS = (without_tokenizer, without_a_shard, pickle_only, corrupt, cut_short)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
@pytest.mark.parametrize("family", FOLDERS)
def test_the_line_names_what_is_wrong(copy_of, family, defect: Callable[[Path], str]):
    folder = copy_of(family)
    expected = defect(folder)
    with pytest.raises(ModelLoadError) as raised:
        load(folder, trust_remote_code=True)
    line = str(raised.value)
    assert expected in line and str(folder) in line
    assert "\n" not in line and len(line) < 400


@pytest.mark.parametrize("family", FOLDERS)
def test_nothing_is_wrong_with_a_whole_folder(family_folder, family):
    folder = family_folder(family)
    check_models(load_settings({"FORKLIFT_MODEL": str(folder), "FORKLIFT_TRUST_REMOTE_CODE": "true"}))


def test_code_beside_the_weights_is_run_only_when_trusted(family_folder):
    with pytest.raises(ModelLoadError) as raised:
        load(family_folder("chatglm"))
    line = str(raised.value)
    assert "FORKLIFT_TRUST_REMOTE_CODE" in line and "\n" not in line
    assert load(family_folder("chatglm"), trust_remote_code=True).model.config.model_type == "chatglm"
