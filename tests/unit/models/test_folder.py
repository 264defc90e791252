"""A model folder is a stranger's: whatever is wrong with it is one short line that names the file, at once."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.models.checkpoint.from_hub import hub_ids
from app.models.folder.early import check_models
from app.models.folder.model_folder import check_folder

CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 10, "eos_token_id": 1}
DEEP = "[" * 100_000
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
TOKENIZER = {"model": {"type": "WordLevel", "vocab": {"a": 0}}}
needs_other_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


def write_weights(path: Path, header: bytes, data: bytes = b"\0" * 4) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


@pytest.fixture
def folder(tmp_path):
    """As small as a folder can be that has nothing wrong."""
    whole = tmp_path / "model"
    whole.mkdir()
    (whole / "config.json").write_text(json.dumps(CONFIG))
    (whole / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    write_weights(whole / "model.safetensors", json.dumps({"h.0.a": TENSOR}).encode())
    return whole


def line_of(folder: Path | str) -> str:
    with pytest.raises(ModelLoadError) as raised:
        check_folder(str(folder))
    line = str(raised.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


def test_a_whole_folder_passes(folder):
    check_folder(str(folder))


NAMES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
NAMES += ["model.safetensors.index.json", "vocab.json", "merges.txt", "tokenizer.model", "modules.json"]


def replaced(folder: Path, name: str) -> Path:
    """The path of the file, which is not there any more, nor what would be read in its place."""
    path = folder / name
    path.unlink(missing_ok=True)
    if name == "model.safetensors.index.json":
        (folder / "model.safetensors").unlink()
    return path


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder, name):
    os.mkfifo(path := replaced(folder, name))
    assert line_of(folder) == f"{path} cannot be read: it is a named pipe"


@pytest.mark.parametrize("name", NAMES)
def test_a_device_in_place_of_a_file_is_not_read(folder, name):
    replaced(folder, name).symlink_to("/dev/zero")
    assert line_of(folder) == f"{folder / name} cannot be read: it is a device"


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_place_of_a_file_is_named(folder, name):
    replaced(folder, name).mkdir()
    assert line_of(folder) == f"{folder / name} cannot be read: Is a directory"


@pytest.mark.parametrize("name", NAMES)
def test_a_link_that_leads_nowhere_is_named_with_its_target(folder, name):
    replaced(folder, name).symlink_to("/nowhere/blob")
    assert line_of(folder) == f"{folder / name} cannot be read: it is a link to /nowhere/blob, which does not exist"


def test_a_link_to_itself_is_named(folder):
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    assert "loop.safetensors cannot be read" in line_of(folder)


@needs_other_user
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_another_user_is_named(folder, name):
    replaced(folder, name).touch(0)
    assert "permission denied for user" in line_of(folder)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".json")])
@pytest.mark.parametrize("content", [DEEP, '{"a":' * 100_000, '{"a": 1', "", "\x00\x01", "\ufeff\ufeff{"])
def test_what_is_no_json_is_named(folder, name, content):
    replaced(folder, name).write_text(content)
    assert str(folder / name) in line_of(folder)


def test_json_that_only_libraries_would_trip_over_is_refused(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"x": json.loads("[" * 500 + "]" * 500)}))
    assert line_of(folder) == f"{folder / 'config.json'} is nested too deeply"


@pytest.mark.parametrize("content", ["[]", "1", '"text"', "null"])
def test_a_configuration_that_is_no_object_is_named(folder, content):
    (folder / "config.json").write_text(content)
    assert line_of(folder) == f"{folder / 'config.json'} holds no JSON object"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("eos_token_id", value) for value in ("x", 1.5, -7, True, ["x"], {}, 2**40)),
        *(("pad_token_id", value) for value in ("", [None])),
        *(("vocab_size", value) for value in (0, -1, "10", 1e9, True, 2**31)),
        *(("hidden_size", value) for value in ("768", -768, 2**62)),
        *(("num_hidden_layers", value) for value in (0, "12", [12, "x"])),
        *(("n_positions", value) for value in (-1024, 0.5)),
        *(("torch_dtype", value) for value in ("load", 16, "float31")),
        *(("dtype", value) for value in ("os.system", {"": "load"})),
        *(("model_type", value) for value in (3, ["gpt2"])),
        *(("architectures", value) for value in ("GPT2LMHeadModel", [1], {"a": 1})),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_shown(folder, name, value):
    (folder / "config.json").write_text(json.dumps(CONFIG | {name: value}))
    assert f"config.json: {name} is " in line_of(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"text_config": {name: value}}))
    assert f"config.json: {name} is " in line_of(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "hot", -1])
def test_generation_settings_are_numbers(folder, value):
    (folder / "generation_config.json").write_text(json.dumps({"temperature": value}))
    assert "generation_config.json: temperature is " in line_of(folder)


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
@pytest.mark.parametrize("value", ["someone/kernel", "someone/kernel:fn", {"": "sdpa", "text_config": "a/b"}, "x@y", 3])
def test_attention_that_would_be_fetched_is_refused(folder, name, value):
    (folder / "config.json").write_text(json.dumps(CONFIG | {name: value}))
    assert "code is not fetched for it" in line_of(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vision_config": {name: value}}))
    assert "code is not fetched for it" in line_of(folder)


@pytest.mark.parametrize("value", ["eager", "sdpa", None, "flash_attention_2"])
def test_attention_that_transformers_knows_passes(folder, value):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"attn_implementation": value}))
    check_folder(str(folder))


def test_values_that_real_checkpoints_have_pass(folder):
    real = {"eos_token_id": [1, 2], "pad_token_id": -1, "bos_token_id": None, "torch_dtype": "torch.float16"}
    real |= {"intermediate_size": [4, 8], "head_dim": None, "num_key_value_heads": 1}
    (folder / "config.json").write_text(json.dumps(CONFIG | real))
    check_folder(str(folder))


def test_a_model_that_tells_no_texts_apart_passes(folder):
    (folder / "config.json").write_text(json.dumps(CONFIG | {"type_vocab_size": 0}))
    check_folder(str(folder))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"type_vocab_size": -1}))
    with pytest.raises(ModelLoadError, match="type_vocab_size is -1, not a whole number that is not negative"):
        check_folder(str(folder))


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"dtype": "F32", "shape": [1]},
        TENSOR | {"data_offsets": [4, 0]},
        TENSOR | {"data_offsets": [-4, 4]},
        TENSOR | {"data_offsets": ["0", "4"]},
        TENSOR | {"data_offsets": [0, 4, 8]},
        TENSOR | {"data_offsets": [0.0, 4.0]},
        TENSOR | {"shape": [-1]},
        TENSOR | {"shape": "1"},
        TENSOR | {"dtype": 32},
    ],
)
def test_a_header_with_an_entry_that_is_none_is_broken(folder, entry):
    write_weights(folder / "model.safetensors", json.dumps({"a": entry}).encode())
    assert line_of(folder) == f"the weights {folder / 'model.safetensors'} have a broken header"


@pytest.mark.parametrize("header", [DEEP.encode(), b'{"a":' * 100_000, b"[]", b"\xff\xff", b"{}x"])
def test_a_header_that_is_none_is_broken(folder, header):
    write_weights(folder / "model.safetensors", header)
    assert "have a broken header" in line_of(folder)


@pytest.mark.slow
def test_more_tensors_than_any_model_has_are_refused(folder):
    header = {f"t{index}": TENSOR for index in range(200_001)}
    write_weights(folder / "model.safetensors", json.dumps(header).encode())
    assert "hold 200001 tensors, of 200000 at most" in line_of(folder)


def test_a_header_longer_than_any_model_has_is_not_read(folder):
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 99_000_000))
        file.truncate(99_000_008)
    assert "have a header of 99000000 bytes" in line_of(folder)


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "", 3, None, ["a"], "a\0b"])
def test_an_index_leads_to_files_of_its_own_folder_only(folder, shard):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "is not an index of weights" in line_of(folder)


def test_many_missing_shards_are_counted_and_not_listed(folder):
    (folder / "model.safetensors").unlink()
    names = {f"t{index}": f"model-{index:05}.safetensors" for index in range(5000)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "lacks 5000 of 5000 weight files" in line_of(folder)


def test_a_file_in_place_of_the_folder_is_told_what_it_is(folder):
    line = line_of(folder / "model.safetensors")
    assert line.endswith(f"a file of weights: MODEL is the folder that holds it with its config.json, {folder}")
    (folder / "model.gguf").touch()
    assert "are not a GGUF file" in line_of(folder / "model.gguf")
    assert "is no folder: MODEL is a folder" in line_of(folder / "config.json")


def test_a_folder_without_a_config_says_what_it_holds(folder, tmp_path):
    assert line_of(tmp_path).endswith(f"has no config.json; {folder} has one")
    (tmp_path / "x.gguf").touch()
    assert "x.gguf are not a GGUF file" in line_of(tmp_path)
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert "it is an adapter" in line_of(folder)


def test_the_folder_of_a_hubs_cache_leads_to_its_snapshot(folder, tmp_path):
    cache = tmp_path / "cache" / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    folder.rename(cache / "snapshots" / "abc")
    assert line_of(cache).endswith(f"{cache / 'snapshots' / 'abc'} has one")


def test_a_path_that_leads_nowhere_is_explained(tmp_path):
    (tmp_path / "link").symlink_to("/nowhere/model")
    assert line_of(tmp_path / "link").endswith("does not exist; it is a link to /nowhere/model")
    assert "only a shell knows ~" in line_of("~/models/m")
    assert "cannot be read: File name too long" in line_of("/" + "x" * 300)


def test_the_master_looks_at_residents_and_leaves_models_on_demand_to_those_who_ask(folder, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    tables = tmp_path / "models.toml"
    tables.write_text(f'[good]\npath = "{folder}"\n[bad]\npath = "{bad}"\nload = "on_demand"\n')
    check_models(load_settings({"FORKLIFT_MODELS": str(tables)}))
    tables.write_text(f'[good]\npath = "{folder}"\n[bad]\npath = "{bad}"\n')
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        check_models(load_settings({"FORKLIFT_MODELS": str(tables)}))


def test_a_mistyped_relative_path_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert "models/nope does not exist" in line_of("models/nope")
    assert "mo dels/nope does not exist" in line_of("mo dels/nope")
    check_folder("someone/model")


def test_without_the_hub_a_model_must_be_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_ids, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_ids, "HF_HUB_CACHE", str(tmp_path))
    assert "HF_HUB_OFFLINE is set" in line_of("someone/model")
    cached = tmp_path / "models--someone--model" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    check_folder("someone/model")


def refused_early(folder: Path, **config: object) -> str:
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    with pytest.raises(ModelLoadError) as raised:
        check_models(load_settings({"FORKLIFT_MODEL": str(folder)}))
    return str(raised.value)


def test_code_beside_the_weights_and_tasks_that_are_not_served_are_found_before_anything_is_imported(folder):
    code = {"AutoConfig": "configuration_own.OwnConfig"}
    assert "Python code of its own (configuration_own.py)" in refused_early(folder, model_type="own", auto_map=code)
    other = "BertForMultipleChoice"
    assert f"{other} is not served" in refused_early(folder, architectures=[other])
    (folder / "config.json").write_text(json.dumps(CONFIG | {"auto_map": code}))
    check_models(load_settings({"FORKLIFT_MODEL": str(folder)}))


def test_a_model_on_demand_that_is_no_folder_is_found_before_anything_is_imported(folder, tmp_path):
    file = tmp_path / "models.toml"
    file.write_text(f'[a]\npath = "{folder}"\n[b]\npath = "some/where"\nload = "on_demand"\n')
    with pytest.raises(ModelLoadError, match="needs a model folder, some/where is none"):
        check_models(load_settings({"FORKLIFT_MODELS": str(file)}))
