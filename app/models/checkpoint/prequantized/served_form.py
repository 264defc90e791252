"""The form that weights get here which came in a few bits: the nearest of our own ones on the CPU.

Told from headers and configs alone. Never float32 without being asked. On a GPU transformers' own quantizers load such
a folder, unless a DTYPE asks for plain weights. Inference thread only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from transformers import PretrainedConfig

from app.core.errors import ModelLoadError
from app.core.settings import Settings
from app.models.checkpoint.devices import choose_device, choose_dtype
from app.models.checkpoint.gguf_loading import gguf_form
from app.models.checkpoint.prequantized.coded_folder import CodedFolder, check_coded, quantization_of, read_coded
from app.models.folder.gguf.gguf_folder import gguf_file
from app.models.folder.gguf.gguf_header import read_header
from app.models.weights.int8_linear import has_tiles, has_vectors

Form = Literal["file", "int8", "none"]


def served_settings(settings: Settings) -> Settings:
    """What holds where nothing else was asked for: the form of the file. Raises ``ModelLoadError``.

    Of other models, on other devices, or with a DTYPE or QUANTIZATION of the operator's: ``settings`` as they are.
    """
    form = _form_of(settings)
    if form is None:
        if settings.quantization == "file":
            raise ModelLoadError(
                f"FORKLIFT_QUANTIZATION=file: {settings.model} is no GGUF file, and no folder with quantised weights"
            )
        return settings
    is_free = settings.quantization == "file" or (settings.quantization == "none" and settings.dtype == "auto")
    if not is_free or choose_device(settings.device).type != "cpu" or not (has_vectors() or has_tiles()):
        return settings
    return settings.model_copy(update={"quantization": form})


def _form_of(settings: Settings) -> str | None:
    """None for plain weights, and for those that are left to transformers."""
    if (file := gguf_file(settings.model)) is not None:
        return gguf_form.nearest_form(read_header(file))
    coded = find_coded(settings)
    return None if coded is None else nearest_form(coded)


def nearest_form(coded: CodedFolder) -> Form:
    """``file`` where four bits can be kept; ``int8`` where others are coded that linear layers have, else ``none``."""
    grids = [grid for weight in coded.weights.values() if (grid := weight.grid()) is not None]
    if any(grid.bits == 4 for grid in grids):
        return "file"
    # Experts, which are no linear layers, have no form of ours.
    return "int8" if any(len(weight.shape) == 2 for weight in coded.weights.values()) else "none"


def find_coded(settings: Settings) -> CodedFolder | None:
    """The quantised weights of ``settings.model`` that are read here. Raises ``ModelLoadError``."""
    folder = Path(settings.model)
    quantization = quantization_of(folder) if folder.is_dir() else None
    if quantization is None or not reads_here(settings):
        return None
    coded = read_coded(folder, quantization)
    check_coded(coded)
    return coded


def reads_here(settings: Settings) -> bool:
    """Whether quantised weights are decoded by us: on a CPU, and wherever a DTYPE or QUANTIZATION asks for others."""
    return choose_device(settings.device).type == "cpu" or settings.dtype != "auto"


def dtype_of_coded(config: PretrainedConfig, settings: Settings) -> torch.dtype:
    """The dtype that weights are decoded to: the one asked for, or the config's; bfloat16 where that is none."""
    wanted = choose_dtype(settings)
    if wanted != "auto":
        return wanted
    known = config.get_text_config().dtype or config.dtype
    return known if known in (torch.float16, torch.bfloat16, torch.float32) else torch.bfloat16
