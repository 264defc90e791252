"""Loads a model for its task, and its tokenizer, from a folder or the hub. Inference thread only.

Weights come from safetensors alone (pickle files run code when read). Every way in which a folder
can be wrong ends in a ``ModelLoadError`` with one line for the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from app.core.errors import ModelLoadError
from app.core.logging import get_logger
from app.core.settings import Settings
from app.models.devices import choose_device, choose_dtype, slow_dtype
from app.models.folder import check_folder
from app.models.hub import where_to_look
from app.models.placement import Placement, place
from app.models.remote_code import check_code
from app.models.sentence import SentenceForm, parse, read_sentence_form
from app.models.tasks import Task, detect_task

Progress = Callable[[float], None]

log = get_logger("models")

AUTO_CLASSES: dict[Task, Any] = {
    "generate": AutoModelForCausalLM,
    "fill-mask": AutoModelForMaskedLM,
    "embeddings": AutoModel,
}


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode on its device, with its tokenizer; ``dtype`` is what it computes in.

    ``vocab_size`` is the number of rows of a language model's output layer, of an encoder's embedding;
    ``form`` is how the checkpoint says that its vectors are made.
    """

    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    vocab_size: int
    form: SentenceForm | None = None


def load_checkpoint(settings: Settings, progress: Progress, task: Task | None = None) -> Checkpoint:
    """Load what ``settings.model`` points at; ``progress`` is told shares of 1.

    ``task``: what to load it for; default: what its config says. Raises ``ModelLoadError`` or ``DeviceError``.
    """
    transformers_logging.disable_progress_bar()
    device = choose_device(settings.device)
    source = settings.model
    check_folder(source)
    check_code(source, is_trusted=settings.trust_remote_code)
    where = where_to_look(settings)
    try:
        config = AutoConfig.from_pretrained(source, **where)
        form = read_sentence_form(lambda name: parse(find_file(source, name, where)))
        task = task or detect_task(config, is_sentence_model=form is not None)
        progress(0.2)
        tokenizer = read_tokenizer(source, where)
        progress(0.3)
        dtype = choose_dtype(settings)
        shape = partial(without_weights, AUTO_CLASSES[task], config, dtype, settings.trust_remote_code)
        placement = place(settings, device, shape)
        model, report = AUTO_CLASSES[task].from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            device_map=placement.device_map,
            offload_folder=placement.offload_folder,
            **where,
        )
    except ModelLoadError as error:
        raise ModelLoadError(f"cannot load the model {source}: {error}") from error
    except MemoryError as error:
        raise ModelLoadError(f"not enough memory to load {source}") from error
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"not enough GPU memory to load {source}") from error
    except Exception as error:
        raise ModelLoadError(f"cannot load the model {source}: {first_line(error)}") from error
    check_tokenizer(source, tokenizer)
    check_weights(source, report, task)
    report_placement(settings.model_name, model, device, placement)
    progress(0.8)
    rows = model.get_output_embeddings() if task == "generate" else model.get_input_embeddings()
    model.eval().requires_grad_(False)
    if task == "generate":
        rows.register_forward_pre_hook(_with_plain_strides)
    return Checkpoint(task, model, tokenizer, device, model.dtype, int(rows.weight.shape[0]), form)


def without_weights(
    auto: Any, config: PretrainedConfig, dtype: torch.dtype | Literal["auto"], trust_remote_code: bool
) -> PreTrainedModel:
    """The model on ``meta``: shapes and dtypes, no memory."""
    known = (config.dtype or torch.float32) if dtype == "auto" else dtype
    with torch.device("meta"):
        model: PreTrainedModel = auto.from_config(config, dtype=known, trust_remote_code=trust_remote_code)
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


def read_tokenizer(source: str, where: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer in the family's own class. Raises ``ModelLoadError``; transformers' own words are many lines."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **where)
    except Exception as error:
        is_incomplete = Path(source).exists() and not (Path(source) / "tokenizer.json").exists()
        hint = " (there is no tokenizer.json)" if is_incomplete else ""
        raise ModelLoadError(f"its tokenizer cannot be read{hint}: {first_line(error).rstrip(':')}") from error
    return tokenizer


def find_file(source: str, name: str, where: dict[str, Any]) -> str | None:
    """Path of a file of the checkpoint; None where it has none of this name.

    Without a hub, a file that is not in its cache is one that the checkpoint has not.
    """
    options = {name: value for name, value in where.items() if name != "trust_remote_code"}
    path: str | None = cached_file(
        source,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not where["local_files_only"],
        **options,
    )
    return path


def check_tokenizer(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Without its files transformers makes a tokenizer that knows no text, or nothing but the unknown token."""
    ids = tokenizer("def f(x): return x", add_special_tokens=False)["input_ids"]
    if not set(ids) - {tokenizer.unk_token_id}:
        raise ModelLoadError(f"the model {source} has no tokenizer (tokenizer.json or its family's files)")


def check_weights(source: str, report: dict[str, Any], task: Task) -> None:
    """transformers gives weights that the files lack random values, and says so in a warning only.

    A missing pooler is no fault: our vectors are pooled from the tokens'.
    """
    wrong = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if task == "embeddings":
        wrong = [name for name in wrong if "pooler." not in name]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelLoadError(f"the weights of {source} do not fit its config: {wrong[0]}{more}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
