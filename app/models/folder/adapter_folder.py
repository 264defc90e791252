"""A folder with a LoRA adapter as PEFT saves it: what it changes, and whether that is served. No torch; any thread.

``adapter_config.json`` says how parts are scaled, ``adapter_model.safetensors`` holds two small matrices for each layer
that is changed. What we do not compute is refused by its name: leaving it out would be another model. Everything is a
stranger's: bounded, and raised as a ``ModelLoadError`` of one line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import re2

from app.core.errors import ModelLoadError
from app.core.system.adapter_folders import CONFIG, WEIGHTS
from app.core.system.small_files import open_regular
from app.core.work.adapters import Floats, Part
from app.models.folder.headers import Entry, check_weight_file, read_entries
from app.models.folder.json_files import read_object, unreadable

PREFIX = "base_model.model."
MAX_RANK = 1024
# What a config may hold without changing what is computed.
HARMLESS = {
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping"),
    *("peft_version", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out"),
    *("rank_pattern", "alpha_pattern", "use_rslora", "bias", "init_lora_weights", "layers_to_transform"),
    *("layers_pattern", "modules_to_save", "loftq_config", "eva_config", "corda_config", "megatron_config"),
    *("megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying", "arrow_config", "lora_ga_config"),
}
# Ways to begin a training that leave the model's own weights as they were.
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class AdapterForm:
    """An adapter without its numbers: where the matrices of each layer lie, by the layer's name."""

    folder: Path
    places: dict[str, tuple[Entry, Entry]]
    scales: dict[str, float]
    data_start: int

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each layer that is changed."""
        return {name: (down["shape"][1], up["shape"][0]) for name, (down, up) in self.places.items()}

    @property
    def num_bytes(self) -> int:
        """What ``read_parts`` will take."""
        return 4 * sum(math.prod(entry["shape"]) for pair in self.places.values() for entry in pair)


def read_form(folder: Path) -> AdapterForm:
    """What the folder holds, told from its config and the header of its weights. Raises ``ModelLoadError``."""
    config = read_object(folder / CONFIG)
    check_adapter_config(folder, config)
    path = folder / WEIGHTS
    if not path.exists():
        raise ModelLoadError(f"the adapter {folder} has no {WEIGHTS}")
    check_weight_file(path)
    entries = read_entries(path)
    places = pairs_of(path, entries)
    scales = {name: scale_of(folder, config, name, pair[0]["shape"][0]) for name, pair in places.items()}
    return AdapterForm(folder, places, scales, start_of_data(path))


def check_adapter_config(folder: Path, config: dict[str, Any]) -> None:
    """Raise ``ModelLoadError`` for the first thing of PEFT's that is not served."""
    refused = None
    unknown = [name for name, value in config.items() if value and name not in HARMLESS]
    if (kind := config.get("peft_type")) != "LORA":
        refused = f"its peft_type is {str(kind)[:40]!r}"
    elif unknown:
        refused = f"it sets {unknown[0][:60]}"
    elif config.get("modules_to_save"):
        refused = "it has whole layers of its own (modules_to_save)"
    elif config.get("bias", "none") != "none":
        refused = "it changes biases"
    elif config.get("init_lora_weights") not in PLAIN_STARTS:
        start = str(config["init_lora_weights"])[:40]
        refused = f"its training began with other weights of the model (init_lora_weights {start!r})"
    elif not all(isinstance(config.get(name) or {}, dict) for name in ("rank_pattern", "alpha_pattern")):
        refused = "its patterns are no tables"
    if refused:
        raise ModelLoadError(f"the adapter {folder} is not served: {refused}")


def pairs_of(path: Path, entries: dict[str, Entry]) -> dict[str, tuple[Entry, Entry]]:
    """The two matrices of each layer, by its name. Raises ``ModelLoadError`` for any other tensor."""
    found: dict[str, dict[str, Entry]] = {}
    for key, entry in entries.items():
        name, _, kind = key.removesuffix(".weight").rpartition(".")
        if kind not in ("lora_A", "lora_B") or not key.startswith(PREFIX) or len(entry["shape"]) != 2:
            raise ModelLoadError(f"the adapter's weights {path} hold {key[:100]}, which is not served")
        if entry["dtype"] not in DTYPES:
            raise ModelLoadError(f"the adapter's weights {path} are in {str(entry['dtype'])[:20]}, not in floats")
        found.setdefault(name.removeprefix(PREFIX), {})[kind] = entry
    for name, pair in found.items():
        if len(pair) != 2 or pair["lora_A"]["shape"][0] != pair["lora_B"]["shape"][1]:
            raise ModelLoadError(f"the adapter's weights {path} do not fit each other in {name[:100]}")
        if not 1 <= pair["lora_A"]["shape"][0] <= MAX_RANK:
            raise ModelLoadError(
                f"the adapter's weights {path} are of rank {pair['lora_A']['shape'][0]} in {name[:100]}"
            )
    if not found:
        raise ModelLoadError(f"the adapter's weights {path} hold nothing")
    return {name: (pair["lora_A"], pair["lora_B"]) for name, pair in found.items()}


def scale_of(folder: Path, config: dict[str, Any], name: str, rank: int) -> float:
    """By what the layer's change is multiplied: alpha / r, or alpha / sqrt(r) (rank-stabilised). Raises."""
    told_rank = _of_pattern(config.get("rank_pattern"), name, config.get("r"))
    alpha = _of_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha"))
    if told_rank != rank or type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise ModelLoadError(
            f"the adapter {folder} has rank {rank} in {name[:100]}, its config says {str(told_rank)[:20]} "
            f"with lora_alpha {str(alpha)[:20]}"
        )
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(patterns: dict[str, Any] | None, name: str, usual: Any) -> Any:
    """The value of the first pattern that the end of ``name`` matches, as PEFT has it. A stranger's: by RE2."""
    for pattern, value in (patterns or {}).items():
        try:
            if re2.fullmatch(rf"(?:.*\.)?(?:{pattern})", name):
                return value
        except re2.error:
            continue
    return usual


def start_of_data(path: Path) -> int:
    """Where the tensors begin in a file whose header was checked."""
    with open_regular(path) as file:
        return 8 + int.from_bytes(file.read(8), "little")


def read_parts(form: AdapterForm, largest: float) -> dict[str, Part]:
    """The numbers as they are computed with, scaled, in memory of their own; ``largest``: what their type can hold.

    Raises ``ModelLoadError`` where they cannot be read, are none, or too large: infinity times the zero of another
    adapter's row would be that row's NaN.
    """
    path = form.folder / WEIGHTS
    try:
        return {name: _part(form, name, largest) for name in form.places}
    except OSError as error:
        raise unreadable(path, error) from None


def _part(form: AdapterForm, name: str, largest: float) -> Part:
    down, up = form.places[name]
    with np.errstate(over="ignore"):
        part = Part(_matrix(form, down), np.ascontiguousarray(_matrix(form, up).T * np.float32(form.scales[name])))
    if not all(np.abs(matrix).max(initial=0) <= largest for matrix in (part.down, part.up)):
        raise ModelLoadError(
            f"the adapter's weights {form.folder / WEIGHTS}, scaled by {form.scales[name]:.3g}, are larger than "
            f"{largest:.3g} in {name[:100]}, which the model's type cannot hold"
        )
    return part


def _matrix(form: AdapterForm, entry: Entry) -> Floats:
    path, shape = form.folder / WEIGHTS, entry["shape"]
    start, count = form.data_start + entry["data_offsets"][0], math.prod(shape)
    raw: npt.NDArray[Any] = np.fromfile(path, dtype=DTYPES[entry["dtype"]], count=count, offset=start)
    if raw.size != count:
        raise ModelLoadError(f"the adapter's weights {path} are cut short")
    is_half = entry["dtype"] == "BF16"
    values: Floats = (raw.astype(np.uint32) << 16).view(np.float32) if is_half else raw.astype(np.float32)
    if not np.isfinite(values).all():
        raise ModelLoadError(f"the adapter's weights {path} hold NaN or infinity")
    return values.reshape(shape)
