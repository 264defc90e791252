"""A folder with quantised weights, as transformers is to read it: the tensors of a plain one, each made when asked for.

Inference thread; transformers' threads of a load ask for tensors.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.core.errors import ModelLoadError
from app.models.checkpoint.prequantized.coded_layers import FLOAT8, find_layers
from app.models.checkpoint.prequantized.coded_weight import CodedWeight
from app.models.checkpoint.prequantized.quantization_recipe import Recipe, recipe_of
from app.models.checkpoint.prequantized.stored_tensors import Stored, read_stored
from app.models.folder.json_files import read_object

# Of inputs, keys and values, which are not rounded here.
OF_STATES = (
    *(".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", ".activation_scale"),
    *(".q_scale", ".k_scale", ".v_scale", ".k_zero_point", ".v_zero_point", ".prob_output_scale"),
)
# Left over, these would be weights that nobody reads.
OF_WEIGHTS = (
    *(".qweight", ".qzeros", ".g_idx", ".weight_packed", ".weight_scale", ".weight_scale_inv", ".weight_zero_point"),
    *(".weight_g_idx", ".weight_shape", ".weight_global_scale", ".input_global_scale", ".absmax", ".quant_map"),
    *(".nested_absmax", ".nested_quant_map", ".SCB", ".scales", "_blocks", "_scales", "_scale_inv"),
)
WHOLE_NUMBERS, FLOATS_OF_8_BITS = ("I8", "U8", "I32"), (FLOAT8, "F8_E5M2")


@dataclass(frozen=True)
class CodedFolder:
    """``weights`` by the names of plain ones; ``plain``: what lies beside them as it is."""

    folder: Path
    recipe: Recipe
    weights: dict[str, CodedWeight]
    plain: dict[str, Stored]

    @property
    def num_values(self) -> int:
        """How many weights it holds."""
        stored = sum(math.prod(one.shape) for one in self.plain.values())
        return stored + sum(math.prod(one.shape) for one in self.weights.values())

    @property
    def words(self) -> str:
        """The layout, and how many bits most of the coded weights have."""
        bits = Counter(weight.num_bits for weight in self.weights.values()).most_common(1)[0][0]
        return f"{self.recipe.method}, {bits} bits"

    def state(self, dtype: torch.dtype) -> dict[str, Any]:
        """What ``from_pretrained`` takes for the tensors of a plain folder."""
        made: dict[str, Any] = {name: stored.opened for name, stored in self.plain.items()}
        return made | {name: Unread(coded, dtype) for name, coded in self.weights.items()}

    def of_layer(self, name: str) -> CodedWeight | None:
        """What the weight of the module ``name`` was made of; files may call a model's insides by another prefix."""
        names = (name, name.removeprefix("model."), f"model.{name}")
        return next((found for one in names if (found := self.weights.get(f"{one}.weight")) is not None), None)


class Unread:
    """A weight that is made where it is indexed, as safetensors' slices are read."""

    def __init__(self, coded: CodedWeight, dtype: torch.dtype):
        self._coded, self._dtype = coded, dtype

    def __getitem__(self, _all: object) -> torch.Tensor:
        return self._coded.weight(self._dtype)


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """The ``quantization_config`` of a folder's config; None where its weights are plain. Raises ``ModelLoadError``."""
    if not (folder / "config.json").is_file():
        return None
    found = read_object(folder / "config.json").get("quantization_config")
    return found if isinstance(found, dict) and found else None


def read_coded(folder: Path, quantization: dict[str, Any]) -> CodedFolder:
    """Find all weights of the folder, and hold their tensors against each other. Raises ``ModelLoadError``."""
    recipe, stored = recipe_of(quantization), read_stored(folder)
    weights: dict[str, CodedWeight] = {}
    plain = dict(stored)
    for name, coded, taken in find_layers(stored, recipe):
        for one in taken:
            plain.pop(one, None)
        if name in plain:
            raise ModelLoadError(f"the weights of {folder} hold {name[:100]} both quantised and plain")
        weights[name] = coded
    if not weights:
        raise ModelLoadError(f"the weights of {folder} are not in {recipe.method}, as its quantization_config says")
    return CodedFolder(folder, recipe, weights, _without_scales(folder, plain))


def _without_scales(folder: Path, plain: dict[str, Stored]) -> dict[str, Stored]:
    """What is a model's own. Raises ``ModelLoadError`` for what could only be understood with another layout."""
    for name, stored in plain.items():
        is_coded = stored.dtype in FLOATS_OF_8_BITS or (name.endswith(".weight") and stored.dtype in WHOLE_NUMBERS)
        if is_coded or (name.endswith(OF_WEIGHTS) and not name.endswith(OF_STATES)):
            raise ModelLoadError(
                f"the weights of {folder} hold {name[:100]} in {stored.dtype}, and nothing that goes with it"
            )
    return {name: stored for name, stored in plain.items() if not name.endswith(OF_STATES)}


def check_coded(coded: CodedFolder) -> None:
    """Look at the numbers that can be looked at quickly. Raises ``ModelLoadError``."""
    for weight in coded.weights.values():
        weight.check()
