"""Every way in which a model folder can be wrong gives one line that says what is wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from app.core.errors import DeviceError, ModelLoadError
from app.core.settings import load_settings
from app.models import devices
from app.models.devices import choose_device
from app.models.loader import load_checkpoint


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
    assert "cannot load the model" in load_error(folder)


def test_a_truncated_weights_file_is_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot load the model" in load_error(folder)


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
