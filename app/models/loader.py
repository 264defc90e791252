"""Loads a causal language model and its tokenizer from a folder or the hub. Inference thread only.

Weights come from safetensors alone (pickle files run code when read). Every way in which a folder
can be wrong ends in a ``ModelLoadError`` with one line for the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from app.core.errors import DeviceError, ModelLoadError
from app.core.settings import Settings
from app.models.devices import choose_device, choose_dtype

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode on its device, with its tokenizer; ``dtype`` is what it computes in."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    vocab_size: int


def load_checkpoint(settings: Settings, progress: Progress) -> Checkpoint:
    """Load what ``settings.model`` points at; ``progress`` is told shares of 1.

    Raises ``ModelLoadError`` or ``DeviceError``.
    """
    transformers_logging.disable_progress_bar()
    device = choose_device(settings.device)
    if device.type == "cuda" and settings.gpus_per_worker > 1:
        raise DeviceError("FORKLIFT_GPUS_PER_WORKER above 1 (a model over several GPUs) is not supported yet")
    source = settings.model
    check_folder(source)
    where = {
        "revision": settings.revision or "main",
        "trust_remote_code": settings.trust_remote_code,
        "local_files_only": Path(source).exists(),
    }
    try:
        config = AutoConfig.from_pretrained(source, **where)
        progress(0.2)
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        progress(0.3)
        model, report = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=choose_dtype(settings),
            use_safetensors=True,
            output_loading_info=True,
            device_map={"": device} if device.type != "cpu" else None,
            **where,
        )
    except MemoryError as error:
        raise ModelLoadError(f"not enough memory to load {source}") from error
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"not enough GPU memory to load {source}") from error
    except Exception as error:
        raise ModelLoadError(f"cannot load the model {source}: {first_line(error)}") from error
    check_tokenizer(source, tokenizer)
    check_weights(source, report)
    progress(0.8)
    vocab_size = int(model.get_output_embeddings().weight.shape[0])
    return Checkpoint(model.eval().requires_grad_(False), tokenizer, device, model.dtype, vocab_size)


def check_folder(source: str) -> None:
    """Name what is missing when ``source`` is a path; hub ids are left to transformers."""
    folder = Path(source)
    if not folder.exists():
        if source.startswith(("/", ".", "~")) or source.count("/") != 1:
            raise ModelLoadError(f"the model folder {source} does not exist")
        return
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"the model folder {source} has no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickled[0]} is a pickle file, which is never loaded" if pickled else ""
        raise ModelLoadError(f"the model folder {source} has no *.safetensors weights{hint}")


def check_tokenizer(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Without its files transformers makes a tokenizer with an empty vocabulary."""
    if not tokenizer("def f(x): return x", add_special_tokens=False)["input_ids"]:
        raise ModelLoadError(f"the model {source} has no tokenizer (tokenizer.json or its family's files)")


def check_weights(source: str, report: dict[str, Any]) -> None:
    """transformers gives weights that the files lack random values, and says so in a warning only."""
    wrong = sorted(map(str, report["missing_keys"])) + sorted(map(str, report["mismatched_keys"]))
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelLoadError(f"the weights of {source} do not fit its config: {wrong[0]}{more}")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
