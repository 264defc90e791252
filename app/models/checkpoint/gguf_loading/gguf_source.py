"""What transformers is told to read a GGUF file, and nothing beside it. Inference thread only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, PretrainedConfig, modeling_gguf_pytorch_utils

from app.core.errors import ModelLoadError
from app.models.folder.config_values import check_config

# Where transformers looks for further files: a folder that has none, since those beside a GGUF file may be another
# model's.
EMPTY_FOLDER = str(Path(__file__).resolve().parent)


def where_of(file: Path) -> dict[str, Any]:
    """Arguments that every ``from_pretrained`` of the file shares; its first argument is ``EMPTY_FOLDER``."""
    return {
        "gguf_file": str(file.resolve()),
        "revision": "main",
        "trust_remote_code": False,
        "local_files_only": True,
    }


def read_config(file: Path) -> PretrainedConfig:
    """The config that transformers makes of the file. Raises ``ModelLoadError`` for what is not served."""
    told = file.stat()
    return deepcopy(_config_of(file, told.st_mtime_ns, told.st_size))


@lru_cache(maxsize=8)
def _config_of(file: Path, _changed_ns: int, _size: int) -> PretrainedConfig:
    """Made once: it takes seconds, and is asked for before and at each load."""
    where = where_of(file)
    try:
        config = AutoConfig.from_pretrained(EMPTY_FOLDER, **where)
    except KeyError as error:
        raise ModelLoadError(f"{file} lacks {error} in its metadata") from error
    check_config(file, config.to_dict())
    if config.is_encoder_decoder:
        raise ModelLoadError(f"{file} is of the family {config.model_type!r}: GGUF files of decoders only are served")
    return config


@contextmanager
def read_once() -> Iterator[None]:
    """Inside, transformers' readers of one file share what they parse, and draw no bar on standard error.

    Each of them parses the whole header anew, in seconds: for the config, for the tokenizer and for the weights. The
    names of tensors were made anew for each module of a model (5.24).
    """
    import gguf

    usual = gguf.GGUFReader, gguf.get_tensor_name_map, modeling_gguf_pytorch_utils.tqdm
    gguf.GGUFReader, gguf.get_tensor_name_map = lru_cache(1)(usual[0]), lru_cache(1)(usual[1])
    modeling_gguf_pytorch_utils.tqdm = partial(usual[2], disable=True)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map, modeling_gguf_pytorch_utils.tqdm = usual


def plain_options() -> dict[str, Any]:
    """Arguments of ``from_pretrained`` by which weights become floats, whatever other packages are installed.

    Where transformers has kernels for blocks (5.24), it would fetch them from the hub.
    """
    kind = getattr(transformers, "GgufConfig", None)
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}
