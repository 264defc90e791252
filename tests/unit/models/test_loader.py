"""Every way in which a model folder can be wrong gives one line that says what is wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from structlog.testing import capture_logs

from app.core.errors import DeviceError, ModelLoadError
from app.core.settings import load_settings
from app.models.checkpoint import devices
from app.models.checkpoint.devices import choose_device
from app.models.checkpoint.loader import load_checkpoint


def load(folder, **environ):
    return load_checkpoint(load_settings({"FORKLIFT_MODEL": str(folder), **environ}), lambda _: None)


@pytest.fixture
def folder(model_folder, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(model_folder("qwen2"), tmp_path / "model")


def load_error(folder) -> str:
    with pytest.raises(ModelLoadError) as raised:
        load(folder)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_folder_loads_in_evaluation_mode_with_the_dtype_of_the_checkpoint(folder):
    checkpoint = load(folder)
    assert checkpoint.model.dtype == torch.float32
    assert not checkpoint.model.training
    assert not any(weight.requires_grad for weight in checkpoint.model.parameters())


def test_float16_on_the_cpu_works_and_is_said_to_be_slow(folder):
    with capture_logs() as lines:
        assert load(folder, FORKLIFT_DTYPE="float16").model.dtype == torch.float16
    [line] = [line for line in lines if line["event"] == "slow_dtype"]
    assert (line["log_level"], line["dtype"], line["device"]) == ("warning", "float16", "cpu")
    assert "FORKLIFT_DTYPE=bfloat16" in line["advice"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes_are_not_commented_on(folder, dtype):
    with capture_logs() as lines:
        load(folder, FORKLIFT_DTYPE=dtype)
    assert lines == []


def test_a_dtype_can_be_asked_for(folder):
    assert load(folder, FORKLIFT_DTYPE="bfloat16").model.dtype == torch.bfloat16


def test_a_missing_folder_is_named(tmp_path):
    assert load_error(tmp_path / "nowhere") == f"the model folder {tmp_path / 'nowhere'} does not exist"


def test_a_folder_without_config_is_named(folder):
    (folder / "config.json").unlink()
    assert "has no config.json" in load_error(folder)


def test_pickled_weights_are_never_loaded(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    assert "pytorch_model.bin is a pickle file" in load_error(folder)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not safetensors at all"])
def test_corrupt_weights_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors are not a safetensors file" in load_error(folder)


@pytest.mark.parametrize("header", [b"[]", b"{}x", b'{"a": {}}', b'{"a": {"data_offsets": [0]}}', b'{"a": 1}'])
def test_a_broken_header_is_refused(folder, header):
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert "model.safetensors have a broken header" in load_error(folder)


def test_a_truncated_weights_file_is_refused_with_both_sizes(folder):
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    weights.write_bytes(weights.read_bytes()[:-100])
    assert f"are cut short: {size - 100} bytes, the header speaks of {size}" in load_error(folder)
    weights.write_bytes(weights.read_bytes() + b"x" * 101)
    assert f"are too long: {size + 1} bytes" in load_error(folder)


def test_a_git_lfs_pointer_is_called_by_its_name(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n"
    (folder / "model.safetensors").write_text(pointer)
    assert "model.safetensors are a Git LFS pointer" in load_error(folder)


class TestShards:
    @pytest.fixture
    def folder(self, model_folder, tmp_path):
        """A checkpoint in several files."""
        from transformers import AutoModelForCausalLM

        folder = shutil.copytree(model_folder("qwen2"), tmp_path / "sharded")
        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="100KB")
        (folder / "model.safetensors").unlink(missing_ok=True)
        assert len(list(folder.glob("model-*.safetensors"))) > 2
        return folder

    def test_it_loads(self, folder):
        assert load(folder).model.dtype == torch.float32

    def test_missing_files_are_named(self, folder):
        shards = sorted(folder.glob("model-*"))
        for path in (shards[0], shards[-1]):
            path.unlink()
        assert load_error(folder) == (
            f"the model folder {folder} lacks 2 of {len(shards)} weight files: {shards[0].name}, {shards[-1].name}"
        )

    def test_a_truncated_file_is_named(self, folder):
        weights = sorted(folder.glob("model-*"))[1]
        weights.write_bytes(weights.read_bytes()[:-1])
        assert f"{weights.name} are cut short" in load_error(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
    def test_a_broken_index_is_refused(self, folder, text):
        (folder / "model.safetensors.index.json").write_text(text)
        assert "model.safetensors.index.json is not an index of weights" in load_error(folder)


def test_an_unknown_architecture_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no-such-model"}))
    assert "no-such-model" in load_error(folder)


def test_a_missing_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "has no tokenizer" in load_error(folder)


def test_weights_that_the_checkpoint_lacks_are_refused(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in load_error(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
class TestWithoutAGpu:
    def test_auto_is_the_cpu(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert choose_device("auto") == torch.device("cpu")

    def test_auto_does_not_fall_back_when_a_gpu_was_promised(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES is '0'"):
            choose_device("auto")

    def test_cuda_does_not_fall_back(self, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        with pytest.raises(DeviceError, match="FORKLIFT_DEVICE is cuda"):
            choose_device("cuda")

    def test_cpu_is_taken_whatever_was_promised(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "a,b")
        assert devices.choose_device("cpu") == torch.device("cpu")
