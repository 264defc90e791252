"""Loads a model for its task, and its tokenizer, from a folder or the hub. Inference thread only.

Weights come from safetensors alone (pickle files run code when read). Every way in which a folder
can be wrong ends in a ``ModelLoadError`` with one line for the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from app.core.errors import ModelLoadError
from app.core.logs.logging import get_logger
from app.core.settings import Settings
from app.core.states import WeightFormat
from app.core.tasks.task_table import TASKS, Task
from app.models.checkpoint.devices import choose_device, choose_dtype, slow_dtype
from app.models.checkpoint.gguf_loading.gguf_blocks import attach
from app.models.checkpoint.gguf_loading.gguf_form import dtype_of
from app.models.checkpoint.gguf_loading.gguf_source import plain_options, read_once
from app.models.checkpoint.placement import Placement, place
from app.models.checkpoint.prequantized.coded_loading import attach_codes, load_coded
from app.models.checkpoint.prequantized.served_form import dtype_of_coded
from app.models.checkpoint.source import Source, failing_to_load, find_source, first_line
from app.models.folder.gguf.gguf_folder import gguf_file
from app.models.folder.sentence import Activation, SentenceForm

Progress = Callable[[float], None]

log = get_logger("models")


@dataclass(eq=False)
class Checkpoint:
    """A model in evaluation mode on its device, with its tokenizer; ``dtype`` is what it computes in.

    Quantising sets the model's layers and ``dtype`` anew; all else stays as it is.

    ``vocab_size`` is the number of rows of a language model's output layer, of an encoder's embedding;
    ``form`` is how the checkpoint says that its vectors are made, ``pair_activation`` how it scores pairs; ``format``
    is that of the files.
    """

    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    vocab_size: int
    form: SentenceForm | None = None
    pair_activation: Activation | None = None
    format: WeightFormat = "safetensors"


def load_checkpoint(settings: Settings, progress: Progress, task: Task | None = None) -> Checkpoint:
    """Load what ``settings.model`` points at; ``progress`` is told shares of 1.

    ``task``: what to load it for; default: what its config says. Raises ``ModelLoadError`` or ``DeviceError``.
    """
    transformers_logging.disable_progress_bar()
    device = choose_device(settings.device)
    with read_once() if gguf_file(settings.model) is not None else nullcontext():
        return _load(settings, device, progress, task)


def _load(settings: Settings, device: torch.device, progress: Progress, task: Task | None) -> Checkpoint:
    source = find_source(settings, task)
    progress(0.2)
    with failing_to_load(source.path):
        tokenizer = read_tokenizer(source)
        progress(0.3)
        placement = place(settings, device, partial(without_weights, source, settings))
        model, report = read_model(source, settings, placement)
    check_tokenizer(source.path, tokenizer)
    check_weights(source.path, report, source.task)
    refer_to_codes(source, settings, model)
    report_placement(settings.model_name, model, device, placement)
    progress(0.8)
    model.eval().requires_grad_(False)
    if source.task in ("generate", "seq2seq"):
        rows = model.get_output_embeddings()
        rows.register_forward_pre_hook(_with_plain_strides)
    else:
        rows = model.get_input_embeddings()
    num_rows = int(rows.weight.shape[0])
    return Checkpoint(
        source.task,
        model,
        tokenizer,
        device,
        model.dtype,
        num_rows,
        source.form,
        source.pair_activation,
        source.format,
    )


def refer_to_codes(source: Source, settings: Settings, model: PreTrainedModel) -> None:
    """Have layers refer to the codes that their weights were read from, where these are to be kept."""
    if source.gguf is not None and settings.quantization == "file":
        attach(model, source.gguf)
    elif source.coded is not None and settings.quantization in ("file", "int8"):
        attach_codes(model, source.coded)


def auto_class(task: Task) -> Any:
    """transformers' class that makes models for ``task``."""
    return getattr(transformers, TASKS[task].auto_class)


def read_model(source: Source, settings: Settings, placement: Placement) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model with its weights, from safetensors alone, and transformers' account of the keys it found."""
    if source.coded is not None:
        return load_coded(without_weights(source, settings), source.coded, source.config, settings, placement)
    model, report = auto_class(source.task).from_pretrained(
        source.name_or_path,
        config=source.config,
        dtype=loaded_dtype(source, settings),
        use_safetensors=True,
        output_loading_info=True,
        # Told in the report then, with names and shapes; such a model is refused.
        ignore_mismatched_sizes=True,
        device_map=placement.device_map,
        offload_folder=placement.offload_folder,
        **({} if source.gguf is None else plain_options()),
        **source.where,
    )
    return model, report


def loaded_dtype(source: Source, settings: Settings) -> torch.dtype | Literal["auto"]:
    """The dtype argument for ``from_pretrained``."""
    if source.coded is not None:
        return dtype_of_coded(source.config, settings)
    return choose_dtype(settings) if source.gguf is None else dtype_of(source.gguf, settings)


def without_weights(source: Source, settings: Settings) -> PreTrainedModel:
    """The model on ``meta``: shapes and dtypes, no memory."""
    wanted = loaded_dtype(source, settings)
    known = (source.config.dtype or torch.float32) if wanted == "auto" else wanted
    with torch.device("meta"):
        model: PreTrainedModel = auto_class(source.task).from_config(
            source.config, dtype=known, trust_remote_code=settings.trust_remote_code
        )
    return model


def report_placement(name: str, model: PreTrainedModel, device: torch.device, placement: Placement) -> None:
    """Log what will be slow: a dtype that the device runs badly, layers that lie elsewhere."""
    advice = slow_dtype(device, model.dtype)
    if advice is not None:
        dtype = str(model.dtype).removeprefix("torch.")
        log.warning("slow_dtype", model=name, dtype=dtype, device=str(device), advice=advice)
    if placement.is_spread:
        log.info("model_spread", model=name, bytes=placement.bytes_per_device(model))


def _with_plain_strides(_module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """Copy the hidden states ``(batch, seq, hidden)`` that logits are computed from.

    The models slice the last position out; with the slice's strides torch multiplies in batches and
    copies the whole output matrix first: 0.4 s for 151,936 entries of bfloat16 (torch 2.13).
    """
    return (inputs[0].clone(memory_format=torch.contiguous_format),)


def read_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer in the family's own class. Raises ``ModelLoadError``; transformers' own words are many lines."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source.name_or_path, **source.where)
    except Exception as error:
        folder = Path(source.path)
        is_incomplete = folder.is_dir() and source.gguf is None and not (folder / "tokenizer.json").exists()
        hint = " (there is no tokenizer.json)" if is_incomplete else ""
        raise ModelLoadError(f"its tokenizer cannot be read{hint}: {first_line(error).rstrip(':')}") from error
    return tokenizer


def check_tokenizer(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Without its files transformers makes a tokenizer that knows no text, or nothing but the unknown token."""
    ids = tokenizer("def f(x): return x", add_special_tokens=False)["input_ids"]
    if not set(ids) - {tokenizer.unk_token_id}:
        raise ModelLoadError(f"the model {source} has no tokenizer (tokenizer.json or its family's files)")


def _mismatch(key: tuple[str, Sequence[int], Sequence[int]]) -> str:
    name, found, wanted = key
    return f"{name} is {_shape(found)}, not {_shape(wanted)}"


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) or "a number"


def check_weights(source: str, report: dict[str, Any], task: Task) -> None:
    """transformers gives weights that the files lack random values, and says so in a warning only.

    A missing pooler is no fault: our vectors are pooled from the tokens'.
    """
    wrong = sorted(map(str, report["missing_keys"])) + sorted(map(_mismatch, report["mismatched_keys"]))
    if task == "embeddings":
        wrong = [name for name in wrong if "pooler." not in name]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelLoadError(f"the weights of {source} do not fit its config: {wrong[0]}{more}")
