"""What a folder's files tell before torch or transformers is imported: refusals that are certain, and no others."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.core.tasks.task_table import NOT_SERVED
from app.models.folder import early
from app.models.folder.early import check_models

DEMO = Path(early.__file__).parents[1] / "demo"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo model with the header of its weights and no data, which nothing here reads."""
    shutil.copytree(DEMO, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    with (DEMO / "model.safetensors").open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        write_header(tmp_path / "m", json.loads(file.read(size)))
    return tmp_path / "m"


def write_header(folder: Path, header: dict[str, Any], name: str = "model.safetensors") -> None:
    text = json.dumps(header).encode()
    end = max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
    with (folder / name).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def header_of(folder: Path) -> dict[str, Any]:
    with (folder / "model.safetensors").open("rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def line_of(folder: Path, **settings: str) -> str:
    with pytest.raises(ModelLoadError) as raised:
        look_at(folder, **settings)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
    return str(raised.value)


def look_at(folder: Path, **settings: str) -> None:
    check_models(load_settings({"FORKLIFT_MODEL": str(folder), **settings}))


def test_a_whole_model_passes(folder):
    look_at(folder)


def test_looking_imports_neither_torch_nor_transformers(folder):
    program = (
        "import sys; from app.core.settings import load_settings; from app.models.folder.early import check_models;"
        f"check_models(load_settings({{'FORKLIFT_MODEL': {str(folder)!r}}}));"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=120).returncode == 0


@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",), ("tokenizer_config.json", "added_tokens.json")])
def test_a_tokenizer_that_no_file_can_be_is_missed(folder, kept):
    (folder / "added_tokens.json").write_text("{}")
    for path in [*folder.glob("tokenizer*"), folder / "added_tokens.json"]:
        if path.name not in kept:
            path.unlink()
    assert line_of(folder) == f"the model {folder} has no tokenizer (tokenizer.json or its family's files)"


@pytest.mark.parametrize(
    "name", ["vocab.txt", "tekken.json", "qwen.tiktoken", "spiece.model", "source.spm", "bpe.codes", "vocab-src.json"]
)
def test_files_of_other_tokenizers_are_left_to_those_who_read_them(folder, name):
    (folder / "tokenizer.json").unlink()
    (folder / name).write_text("{}" if name.endswith(".json") else "a")
    look_at(folder)


def test_a_tokenizer_of_bytes_needs_no_file(folder):
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    look_at(folder)


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"model": "BPE"}, {"model": {"vocab": {}}}, {"model": None}])
def test_a_tokenizer_without_a_vocabulary_is_told(folder, content):
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "tokenizer.json holds no vocabulary" in line_of(folder)


@pytest.mark.parametrize("of_list", [False, True])
def test_a_vocabulary_of_another_model_is_told_and_a_few_tokens_more_are_not(folder, of_list):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())

    def write(size: int) -> None:
        tokens = [f"t{index}" for index in range(size)]
        tokenizer["model"]["vocab"] = (
            [[one, 0.0] for one in tokens] if of_list else {one: index for index, one in enumerate(tokens)}
        )
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    write(50257)
    assert line_of(folder).endswith("another model's: it has 50257 tokens, vocab_size in config.json is 8192")
    write(8200)
    look_at(folder)


def without(part: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda header: {name: entry for name, entry in header.items() if part not in name}


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda header: {name.replace(old, new): entry for name, entry in header.items()}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (without("layers.3."), "of its 6 layers they lack 1: 3"),
        (without("layers."), "they have no layers as a qwen2 model has them (layers.0, ...)"),
        (renamed("model.layers.", "transformer.h."), "they have no layers as a qwen2 model has them (layers.0, ...)"),
    ],
)
def test_weights_without_the_layers_of_the_config_are_told(folder, edit, said):
    write_header(folder, edit(header_of(folder)))
    assert line_of(folder) == f"the weights of {folder} do not fit its config: {said}"


def test_more_layers_in_the_config_than_in_the_weights_are_told(folder):
    change(folder / "config.json", num_hidden_layers=99, layer_types=["full_attention"] * 99)
    assert line_of(folder).endswith("of its 99 layers they lack 93: 6, 7, 8, ...")


def test_kinds_are_named_for_every_layer(folder):
    change(folder / "config.json", num_hidden_layers=99)
    assert line_of(folder).endswith("config.json: num_hidden_layers is 99, but layer_types has 6 entries")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vocab_size": 32000}, "model.embed_tokens.weight is 8192 x 384, vocab_size is 32000"),
        ({"hidden_size": 768}, "model.embed_tokens.weight is 8192 x 384, the hidden size is 768"),
    ],
)
def test_an_embedding_of_another_size_is_told(folder, values, said):
    change(folder / "config.json", **values)
    assert line_of(folder).endswith(f"do not fit its config: {said}")


def test_an_embedding_that_is_smaller_by_design_passes(folder):
    change(folder / "config.json", hidden_size=768, word_embed_proj_dim=384)
    look_at(folder)


@pytest.mark.parametrize("values", [{"model_type": "mamba"}, {"auto_map": {"AutoConfig": "x.X"}}])
def test_where_the_layout_is_not_certain_nothing_is_said(folder, values):
    change(folder / "config.json", **values)
    write_header(folder, renamed("layers", "parts")(header_of(folder)))
    look_at(folder, FORKLIFT_TRUST_REMOTE_CODE="true")


def test_shards_that_lack_what_their_index_names_are_told(folder):
    header = header_of(folder)
    first = "model-00001-of-00001.safetensors"
    index = {"weight_map": {name: first for name in header if name != "__metadata__"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    write_header(folder, header, first)
    look_at(folder)
    write_header(folder, without("model.norm")(header), first)
    assert line_of(folder).endswith("lack what their index names: model.norm.weight")


def test_a_family_that_transformers_does_not_have_is_told(folder):
    change(folder / "config.json", model_type="qwen99")
    assert "is of the family 'qwen99', which transformers" in line_of(folder)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("sam", "SamModel"),
        ("clip", "CLIPModel"),
        ("vit", "ViTForImageClassification"),
        ("wav2vec2", "Wav2Vec2ForCTC"),
        ("bert", "BertForMultipleChoice"),
    ],
)
def test_a_family_or_head_that_is_not_served_is_told(folder, family, name):
    change(folder / "config.json", model_type=family, architectures=[name])
    assert line_of(folder) == NOT_SERVED.format(name)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs_and_an_empty_file_are_told(folder, name):
    (folder / name).write_text(POINTER)
    assert line_of(folder).endswith(f"{name} is a Git LFS pointer: fetch the file itself (git lfs pull)")
    (folder / name).write_text("\n")
    assert line_of(folder).endswith(f"{name} is not valid JSON: it is empty")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model.bin", "a pickle file, which is never loaded"),
        ("model.pt", "a pickle file, which is never loaded"),
        ("tf_model.h5", "of another framework"),
        ("model.onnx", "of another framework"),
    ],
)
def test_weights_in_another_form_are_told(folder, name, said):
    (folder / "model.safetensors").rename(folder / name)
    assert f"has no *.safetensors weights; {name} is {said}" in line_of(folder)


def test_a_pipeline_of_diffusers_is_told(folder):
    (folder / "config.json").rename(folder / "model_index.json")
    assert line_of(folder).endswith("has no config.json; it is a pipeline of diffusers, which is not served")


def test_a_quantization_that_is_no_object_is_told(folder):
    change(folder / "config.json", quantization_config="int8")
    assert line_of(folder).endswith("quantization_config is 'int8', not an object")


@pytest.mark.parametrize(
    ("text", "said"),
    [("{% for m in messages %}", "is not a Jinja template"), ("{{ x", "is not a Jinja template")],
)
def test_a_template_that_does_not_parse_is_told(folder, text, said):
    (folder / "own.jinja").write_text(text)
    assert said in line_of(folder, FORKLIFT_CHAT_TEMPLATE=str(folder / "own.jinja"))


def test_a_template_may_mark_what_the_model_writes(folder):
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}"
    (folder / "own.jinja").write_text(text)
    look_at(folder, FORKLIFT_CHAT_TEMPLATE=str(folder / "own.jinja"))


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "T5ForTokenClassification"])
def test_heads_for_texts_are_left_to_the_load(folder, name):
    change(folder / "config.json", architectures=[name])
    look_at(folder)
