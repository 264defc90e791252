"""A model of quantised weights: transformers is given them decoded, and layers learn what codes they were read from.

Inference thread only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from app.core.errors import ModelLoadError
from app.core.settings import Settings
from app.models.checkpoint.placement import Placement
from app.models.checkpoint.prequantized.coded_folder import CodedFolder
from app.models.checkpoint.prequantized.coded_weight import CodedWeight
from app.models.checkpoint.prequantized.quantization_recipe import unserved
from app.models.checkpoint.prequantized.served_form import dtype_of_coded
from app.models.weights.grids import set_grid

NUM_COMPARED_ROWS = 64


def load_coded(
    shape: PreTrainedModel, coded: CodedFolder, config: PretrainedConfig, settings: Settings, placement: Placement
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model, and transformers' account of the keys it found; each weight is decoded once, to the loaded dtype.

    ``shape`` is the model on ``meta``. Raises ``ModelLoadError``.
    """
    if placement.is_spread:
        raise ModelLoadError("quantised weights cannot be spread over devices: GPUS_PER_WORKER must be 1")
    check_modules(shape, coded)
    dtype = dtype_of_coded(config, settings)
    model, report = type(shape).from_pretrained(
        None,
        config=shape.config,
        dtype=dtype,
        state_dict=coded.state(dtype),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        device_map=placement.device_map,
        generation_config=generation_config_of(coded.folder),
    )
    model.config.name_or_path = str(coded.folder)
    return model, report


def generation_config_of(folder: Path) -> GenerationConfig | None:
    """What the folder says of generation; None: its config alone does."""
    if not (folder / "generation_config.json").exists():
        return None
    found: GenerationConfig = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    return found


def check_modules(model: nn.Module, coded: CodedFolder) -> None:
    """Raise ``ModelLoadError`` where a weight lies transposed in the model: how it was coded is not told then."""
    for name, module in model.named_modules():
        if isinstance(module, Conv1D) and coded.of_layer(name) is not None:
            raise unserved(f"{coded.recipe.method} with the transposed layers of {type(model).__name__}")


def attach_codes(model: nn.Module, coded: CodedFolder) -> int:
    """Have the linear layers of ``model``, which was read from the folder, refer to codes; how many do."""
    num_found = 0
    for name, layer in model.named_modules():
        found = coded.of_layer(name) if type(layer) is nn.Linear else None
        grid = None if found is None else found.grid()
        if found is not None and grid is not None and _means(found, layer):
            set_grid(layer, grid)
            num_found += 1
    return num_found


def layers_with_grids(model: nn.Module, coded: CodedFolder) -> dict[nn.Module, int]:
    """The linear layers of ``model`` whose codes of four bits can be kept, and the inputs of a group of each.

    By names and shapes alone: it may be on ``meta``.
    """
    found: dict[nn.Module, int] = {}
    for name, layer in model.named_modules():
        weight = coded.of_layer(name) if type(layer) is nn.Linear else None
        if type(layer) is nn.Linear and weight is not None and weight.shape == tuple(layer.weight.shape):
            grid = weight.grid()
            if grid is not None and grid.bits == 4:
                found[layer] = grid.group_size
    return found


def _means(coded: CodedWeight, layer: Any) -> bool:
    """Whether ``layer``'s weight begins as ``coded`` says: transformers may have moved its rows, or tied it."""
    if tuple(layer.weight.shape) != coded.shape:
        return False
    told = coded.rows(slice(0, min(NUM_COMPARED_ROWS, coded.shape[0])))
    return torch.equal(told.to(layer.weight.dtype), layer.weight.detach()[: len(told)])
