"""Model folders with something wrong, for a start that must end with one line."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from tests.e2e.mistakes import Environ, Mistake, settings

REPOSITORY = Path(__file__).resolve().parents[2]
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
TOKENIZER = {"model": {"type": "WordLevel", "vocab": {"a": 0}}}
CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 10}


def write_weights(path: Path, header: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)


def model(change: Callable[[Path], object], config: dict[str, object] | None = None) -> Callable[[Path], Environ]:
    """A folder that has nothing wrong but what ``change`` does to it."""

    def prepare(folder: Path) -> Environ:
        whole = folder / "m"
        whole.mkdir()
        (whole / "config.json").write_text(json.dumps(CONFIG | (config or {})))
        (whole / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        write_weights(whole / "model.safetensors", json.dumps({"h.0.a": TENSOR}).encode())
        change(whole)
        return {"FORKLIFT_MODEL": str(whole)}

    return prepare


def demo(change: Callable[[Path], object], **values: object) -> Callable[[Path], Environ]:
    """A copy of the embedded demo model with something wrong that only the libraries find."""

    def prepare(folder: Path) -> Environ:
        shutil.copytree(REPOSITORY / "app/models/demo", folder / "m")
        change(folder / "m")
        return {"FORKLIFT_MODEL": str(folder / "m"), **settings(**values)(folder)}

    return prepare


def change_config(**values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def nothing(_folder: Path) -> None:
    """Leave the folder as it is."""


def replace(name: str, put: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        put(folder / name)

    return change


def put(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def replace_all(name: str | None) -> Callable[[Path], object]:
    """Nothing but an object in the file ``name``."""

    def change(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        if name is not None:
            (folder / name).write_text("{}")

    return change


def indexed(index: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def change_tokenizer(folder: Path, values: dict[str, object]) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"] |= values
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def larger_vocabulary(folder: Path) -> None:
    change_tokenizer(folder, {"vocab": {f"token {index}": index for index in range(9000)}})


def as_file(name: str) -> Callable[[Path], Environ]:
    def prepare(folder: Path) -> Environ:
        (folder / name).write_bytes(b"GGUF")
        return {"FORKLIFT_MODEL": str(folder / name)}

    return prepare


def many_tensors(folder: Path) -> None:
    header = json.dumps({f"t{index}": TENSOR for index in range(700_000)})
    write_weights(folder / "model.safetensors", header.encode())


def above(folder: Path) -> Environ:
    model(nothing)(folder)
    return {"FORKLIFT_MODEL": str(folder)}


LFS = "version https://git-lfs.github.com/spec/v1\n"
INDEX = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})

MISTAKES_OF_FOLDERS = (
    Mistake("no such folder", "/models/none does not exist", settings(MODEL="{folder}/none")),
    Mistake("a tilde", "only a shell knows ~", settings(MODEL="~/models/m")),
    Mistake("a file of weights", "MODEL is the folder that holds it", as_file("model.safetensors")),
    Mistake("the start of a GGUF file", "are not a GGUF file", as_file("model.gguf")),
    Mistake("the folder above", "has no config.json; /models/m has one", above),
    Mistake("a folder of another user", "permission denied", model(lambda path: path.chmod(0)), without_rights=True),
    Mistake(
        "weights of another user",
        "permission denied",
        model(lambda path: (path / "model.safetensors").chmod(0)),
        without_rights=True,
    ),
    Mistake(
        "a link that leads nowhere",
        "which does not exist",
        model(replace("tokenizer.json", lambda path: path.symlink_to("/nowhere/blob"))),
    ),
    Mistake("a pipe", "it is a named pipe", model(replace("config.json", os.mkfifo))),
    Mistake("a device", "it is a device", model(replace("config.json", lambda path: path.symlink_to("/dev/zero")))),
    Mistake(
        "config.json, 100,000 deep",
        "is nested too deeply",
        model(replace("config.json", lambda path: path.write_text("[" * 100_000))),
    ),
    Mistake("eos_token_id: x", "eos_token_id is 'x', not a token id", model(nothing, {"eos_token_id": "x"})),
    Mistake("a hub's kernel", "code is not fetched for it", model(nothing, {"attn_implementation": "someone/kernel"})),
    Mistake(
        "a damaged tokenizer.json",
        "is not valid JSON",
        model(replace("tokenizer.json", lambda path: path.write_text("{"))),
    ),
    Mistake(
        "pickled weights",
        "is a pickle file, which is never loaded",
        model(lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin")),
    ),
    Mistake(
        "a Git LFS pointer",
        "are a Git LFS pointer",
        model(replace("model.safetensors", lambda path: path.write_text(LFS))),
    ),
    Mistake(
        "weights cut short",
        "are cut short",
        model(
            lambda path: os.truncate(path / "model.safetensors", path.joinpath("model.safetensors").stat().st_size - 2)
        ),
    ),
    Mistake(
        "a shard is missing",
        "lacks 2 of 2 weight files",
        model(
            lambda path: [
                (path / "model.safetensors").unlink(),
                (path / "model.safetensors.index.json").write_text(INDEX),
            ]
        ),
    ),
    Mistake(
        "a header 100,000 deep",
        "have a broken header",
        model(lambda path: write_weights(path / "model.safetensors", b"[" * 100_000)),
    ),
    Mistake("700,000 tensors", "hold 700000 tensors", model(many_tensors)),
    Mistake(
        "code of its own",
        "FORKLIFT_TRUST_REMOTE_CODE",
        demo(change_config(model_type="other", auto_map={"AutoConfig": "x.X"})),
    ),
    Mistake(
        "a task that is not served",
        "is not served",
        demo(change_config(architectures=["LlamaForMultipleChoice"])),
    ),
    Mistake(
        "a family that is not served",
        "CLIPModel is not served",
        demo(change_config(model_type="clip", architectures=["CLIPModel"])),
    ),
    Mistake("a family that is not known", "is of the family 'qwen99'", demo(change_config(model_type="qwen99"))),
    Mistake("a config at odds with itself", "but layer_types has 6 entries", demo(change_config(num_hidden_layers=99))),
    Mistake(
        "weights of another model",
        "of its 8 layers they lack 2: 6, 7",
        demo(change_config(num_hidden_layers=8, layer_types=["full_attention"] * 8)),
    ),
    Mistake(
        "weights of another family",
        "they have no layers as a gpt2 model has them",
        demo(change_config(model_type="gpt2", architectures=["GPT2LMHeadModel"])),
    ),
    Mistake(
        "a vocabulary of another size", "is 8192 x 384, vocab_size is 32000", demo(change_config(vocab_size=32000))
    ),
    Mistake("no tokenizer", "has no tokenizer", demo(lambda path: [one.unlink() for one in path.glob("tokenizer*")])),
    Mistake("a part of a tokenizer", "holds no vocabulary", demo(put("tokenizer.json", "{}"))),
    Mistake("a tokenizer of another model", "another model's: it has 9000 tokens", demo(larger_vocabulary)),
    Mistake(
        "a tokenizer that was not fetched", "tokenizer.json is a Git LFS pointer", demo(put("tokenizer.json", LFS))
    ),
    Mistake("an empty config.json", "it is empty", demo(put("config.json", ""))),
    Mistake("an index that is none", "is not an index of weights", demo(indexed([]))),
    Mistake("an adapter", "it is an adapter: merge it", demo(replace_all("adapter_config.json"))),
    Mistake("the same in a folder", "m.gguf are not a GGUF file", demo(replace_all("m.gguf"))),
    Mistake("a pipeline of diffusers", "which is not served", demo(replace_all("model_index.json"))),
    Mistake("an empty folder", "has no config.json", demo(replace_all(None))),
    Mistake(
        "a chat template that does not parse",
        "is not a Jinja template",
        demo(put("own.jinja", "{% for m in messages %}"), CHAT_TEMPLATE="{folder}/m/own.jinja"),
    ),
    Mistake(
        "a layer of another shape",
        "do not fit its config: model.layers.0.mlp",
        demo(change_config(intermediate_size=999)),
        needs_model=True,
    ),
    Mistake(
        "a quantised checkpoint",
        "are not in gptq, as its quantization_config says",
        demo(change_config(quantization_config={"quant_method": "gptq", "bits": 4})),
        needs_model=True,
    ),
    Mistake(
        "a tokenizer of a kind not known",
        "its tokenizer cannot be read",
        demo(lambda path: change_tokenizer(path, {"type": "Other"})),
        needs_model=True,
    ),
    Mistake("an activation not known", "KeyError: 'other'", demo(change_config(hidden_act="other")), needs_model=True),
)
