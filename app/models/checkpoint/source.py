"""Where a checkpoint lies and what its small files say of it: looked at the same way before and at every load.

Inference thread: transformers reads the config, for which remote code may run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import cached_file

from app.core.errors import ModelLoadError
from app.core.settings import Settings
from app.core.states import WeightFormat
from app.core.tasks.task_table import Task
from app.models.checkpoint.from_hub.hub import where_to_look
from app.models.checkpoint.gguf_loading.gguf_source import EMPTY_FOLDER, read_config, where_of
from app.models.checkpoint.prequantized.coded_folder import CodedFolder
from app.models.checkpoint.prequantized.served_form import find_coded, reads_here
from app.models.folder.config_values import check_config
from app.models.folder.gguf.gguf_folder import gguf_file
from app.models.folder.gguf.gguf_header import GgufHeader, read_header
from app.models.folder.json_files import read_object
from app.models.folder.model_folder import check_folder
from app.models.folder.remote_code import check_code
from app.models.folder.sentence import (
    Activation,
    SentenceForm,
    parse,
    read_pair_activation,
    read_sentence_form,
)
from app.models.folder.tasks import detect_task

MAX_REASON_CHARS = 500


@dataclass(frozen=True)
class Source:
    """``where``: arguments that every ``from_pretrained`` of the checkpoint shares.

    ``form``: how it makes vectors; ``pair_activation``: of what a score of a pair is made; None where it does not say.
    ``gguf``: the header, of a GGUF file; ``coded``: weights that were quantised before and are decoded here.
    """

    path: str
    where: dict[str, Any]
    config: PretrainedConfig
    form: SentenceForm | None
    task: Task
    pair_activation: Activation | None = None
    gguf: GgufHeader | None = None
    coded: CodedFolder | None = None

    @property
    def format(self) -> WeightFormat:
        """That of its files."""
        if self.gguf is not None:
            return "gguf"
        return "safetensors" if self.coded is None else self.coded.recipe.method

    @property
    def name_or_path(self) -> str:
        """The first argument of every ``from_pretrained``."""
        return self.path if self.gguf is None else EMPTY_FOLDER


def find_source(settings: Settings, task: Task | None = None) -> Source:
    """What ``settings.model`` points at, once its folder was found whole; ``task``: default: what its config says.

    Raises ``ModelLoadError``.
    """
    path = settings.model
    check_folder(path)
    if (file := gguf_file(path)) is not None:
        return _of_gguf(path, file, task)
    check_code(path, is_trusted=settings.trust_remote_code)
    where = where_to_look(settings)
    with failing_to_load(path):
        if (config_file := _find_file(path, "config.json", where)) is not None:
            # Of a hub's model, whose files are not in a folder that was looked at.
            check_config(Path(config_file), read_object(Path(config_file)))
        config = AutoConfig.from_pretrained(path, **where)

        def read(name: str) -> Any:
            return parse(_find_file(path, name, where))

        form = read_sentence_form(read)
        chosen = task or detect_task(config, is_sentence_model=form is not None)
        activation = read_pair_activation(read) if chosen == "rerank" else None
        return Source(path, where, config, form, chosen, activation, coded=_coded(path, config, settings))


def _coded(path: str, config: PretrainedConfig, settings: Settings) -> CodedFolder | None:
    """The quantised weights of a folder that are decoded here: ``config`` says no more that they are quantised."""
    quantization = getattr(config, "quantization_config", None)
    if not quantization or not reads_here(settings):
        return None
    if not Path(path).is_dir():
        raise ModelLoadError("its weights are quantised: they are read from a folder, fetch it first (hf download)")
    del config.quantization_config
    return find_coded(settings)


def _of_gguf(path: str, file: Path, task: Task | None) -> Source:
    """A GGUF file's source: it is read for texts to be generated."""
    with failing_to_load(path):
        if task not in (None, "generate"):
            raise ModelLoadError(f"a GGUF file is served to generate text, not for {task}")
        return Source(path, where_of(file), read_config(file), None, "generate", gguf=read_header(file))


@contextmanager
def failing_to_load(path: str) -> Iterator[None]:
    """Turn whatever is raised inside into a ``ModelLoadError`` of one line that names the model."""
    try:
        yield
    except ModelLoadError as error:
        raise ModelLoadError(f"cannot load the model {path}: {error}") from error
    except MemoryError as error:
        raise ModelLoadError(f"not enough memory to load {path}") from error
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"not enough GPU memory to load {path}") from error
    except Exception as error:
        raise ModelLoadError(f"cannot load the model {path}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, with the next one where it only announces that, or its class name."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] = f"{lines[0]} {lines[1]}"
    if isinstance(error, LookupError | AttributeError | TypeError):
        # Their texts are only a name, or speak of the library's inside.
        lines[:1] = [f"{type(error).__name__}: {''.join(lines[:1])}"]
    return lines[0][:MAX_REASON_CHARS] if lines else type(error).__name__


def _find_file(path: str, name: str, where: dict[str, Any]) -> str | None:
    """Path of a file of the checkpoint; None where it has none of this name.

    Without a hub, a file that is not in its cache is one that the checkpoint has not.
    """
    options = {name: value for name, value in where.items() if name != "trust_remote_code"}
    found: str | None = cached_file(
        path,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not where["local_files_only"],
        **options,
    )
    return found
