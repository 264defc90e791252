"""What can be wrong with a GGUF file is one line, told from its header before any library reads it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from app.core.errors import ModelLoadError
from app.models.folder import model_folder
from app.models.folder.gguf.gguf_folder import check_gguf, gguf_file
from app.models.folder.gguf.gguf_header import read_header
from app.models.folder.model_folder import check_folder

STRING, ARRAY, U32, U64 = 8, 9, 4, 10


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, offset)


TOKENS = struct.pack("<IQ", STRING, 3) + text("a") + text("b") + text("c")
KEYS = {
    "general.architecture": (STRING, text("llama")),
    "llama.block_count": (U32, struct.pack("<I", 1)),
    "llama.embedding_length": (U32, struct.pack("<I", 4)),
    "tokenizer.ggml.tokens": (ARRAY, TOKENS),
}
TENSORS = [tensor("token_embd.weight", (3, 4)), tensor("blk.0.attn_q.weight", (4, 4), offset=64)]


def content(
    changes: dict[str, tuple[int, bytes] | None] | None = None,
    tensors: list[bytes] = TENSORS,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    num_bytes: int = 128,
) -> bytes:
    keys = {key: value for key, value in {**KEYS, **(changes or {})}.items() if value is not None}
    head = struct.pack("<4sIQQ", b"GGUF", version, *(counts or (len(tensors), len(keys))))
    head += b"".join(pair(key, *value) for key, value in keys.items()) + b"".join(tensors)
    return head + bytes(-len(head) % 32 + num_bytes)


def line_of(path: Path) -> str:
    with pytest.raises(ModelLoadError) as raised:
        check_gguf(path, is_installed=True)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_whole_file_says_what_it_holds(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(content())
    header = check_gguf(path, is_installed=True)
    assert (header.architecture, header.own("block_count"), header.metadata["tokenizer.ggml.tokens"]) == ("llama", 1, 3)
    assert {name: (one.shape, one.kind.name, one.num_bytes) for name, one in header.tensors.items()} == {
        "token_embd.weight": ((3, 4), "F32", 48),
        "blk.0.attn_q.weight": ((4, 4), "F32", 64),
    }


HUGE = struct.pack("<Q", 2**62)
FAULTS = {
    "another format": (b"PK\3\4" + bytes(100), "are not a GGUF file"),
    "nothing": (b"", "are not a GGUF file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "version 1": (content(version=1), "is of version 1, not 2 or 3"),
    "big-endian": (content()[:4] + struct.pack(">I", 3) + content()[8:], "is written for big-endian machines"),
    "no end": (content()[:60], "are cut short within its header"),
    "a cut file": (content(num_bytes=40), "are cut short: "),
    "countless tensors": (content(counts=(2**62, 4)), "have a broken header: 4611686018427387904 tensors"),
    "countless keys": (content(counts=(2, 2**62)), "have a broken header"),
    "a key without end": (content()[:24] + HUGE + content()[32:], "are cut short within its header"),
    "an endless list": (content({"x": (ARRAY, struct.pack("<I", STRING) + HUGE)}), "have a broken header: arrays of"),
    "endless numbers": (content({"x": (ARRAY, struct.pack("<I", U64) + HUGE)}), "have a broken header: arrays of"),
    "lists in lists": (content({"x": (ARRAY, struct.pack("<IQ", ARRAY, 1))}), "an array of type 9"),
    "an unknown value": (content({"x": (77, b"")}), "a value of type 77"),
    "an unknown type": (content(tensors=[tensor("t", (4,), 99)]), "t is of ggml's type 99"),
    "part of a block": (content(tensors=[tensor("t", (33,), 2)]), "t is 33 of Q4_0"),
    "a gigantic tensor": (content(tensors=[tensor("t", (2**40, 2**40))]), "have a broken header: t is"),
    "many dimensions": (content(tensors=[tensor("t", (1,) * 9)]), "t has 9 dimensions"),
    "the same twice": (content(tensors=[TENSORS[0], TENSORS[0]]), "two tensors of one name"),
    "alignment 0": (content({"general.alignment": (U32, struct.pack("<I", 0))}), "general.alignment is 0"),
    "a part": (content({"split.count": (2, struct.pack("<H", 3))}), "is one of 3 parts of a GGUF file: join them"),
    "an adapter": (content({"general.type": (STRING, text("adapter"))}), "of type 'adapter', not of a model"),
    "no tokenizer": (content({"tokenizer.ggml.tokens": None}), "(architecture 'llama') holds no tokenizer"),
    "no architecture": (content({"general.architecture": None}), "names no general.architecture"),
    "no embedding": (content(tensors=TENSORS[1:]), "has no token_embd.weight"),
    "more layers": (content({"llama.block_count": (U32, struct.pack("<I", 2**31))}), "block_count is 2147483648"),
    "another width": (content({"llama.embedding_length": (U32, struct.pack("<I", 8))}), "embedding_length is 8"),
    "other tokens": (content(tensors=[tensor("token_embd.weight", (2, 4)), TENSORS[1]]), "has 3 tokens"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_line(tmp_path, name):
    path = tmp_path / "m.gguf"
    path.write_bytes(FAULTS[name][0])
    assert FAULTS[name][1] in line_of(path)


def test_without_the_package_the_line_says_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"
    path.write_bytes(content())
    monkeypatch.setattr(model_folder, "is_installed", lambda module: module != "gguf")
    with pytest.raises(ModelLoadError, match=r"pip install 'forklift-serve\[gguf\]'"):
        check_folder(str(path))


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.gguf")
    assert "it is a named pipe" in line_of(tmp_path / "m.gguf")


def test_a_folder_means_the_one_file_that_it_holds(tmp_path):
    (tmp_path / "m.gguf").write_bytes(content())
    (tmp_path / "mmproj-m.gguf").write_bytes(b"")
    (tmp_path / "README.md").write_text("")
    assert gguf_file(str(tmp_path)) == gguf_file(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"
    (tmp_path / "n.gguf").write_bytes(content())
    with pytest.raises(ModelLoadError, match=r"holds 2 GGUF files: MODEL names one, m\.gguf, n\.gguf"):
        gguf_file(str(tmp_path))
    assert gguf_file(str(tmp_path / "n.gguf")) == tmp_path / "n.gguf"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert gguf_file(str(tmp_path)) is None


def test_the_parts_of_one_file_are_told_as_such(tmp_path):
    for i in (1, 2):
        (tmp_path / f"m-0000{i}-of-00002.gguf").write_bytes(content())
    with pytest.raises(ModelLoadError, match="is one of 2 parts of a GGUF file: join them with"):
        check_folder(str(tmp_path))


def test_a_file_that_has_changed_is_read_again(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(content())
    read_header(path)
    path.write_bytes(content(num_bytes=40))
    assert "are cut short" in line_of(path)
