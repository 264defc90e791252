"""What can be told of a model without its weights: its task, and the memory that it will take.

Reads the config and the headers of the safetensors files, or of the GGUF file.
Inference thread only: transformers is imported here, and remote code may run to read a config.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PretrainedConfig

from app.core.errors import ModelLoadError
from app.core.settings import COMPUTES_IN, ModelPlan, Settings
from app.core.tasks.task_table import Task
from app.models.checkpoint.devices import choose_device, choose_dtype
from app.models.checkpoint.gguf_loading.gguf_blocks import linear_tensors
from app.models.checkpoint.gguf_loading.gguf_form import dtype_of
from app.models.checkpoint.layer_kinds import FULL, latent_rank, layer_kinds, most_new_tokens, num_snapshots
from app.models.checkpoint.loader import without_weights
from app.models.checkpoint.prequantized.coded_loading import layers_with_grids
from app.models.checkpoint.prequantized.served_form import dtype_of_coded, served_settings
from app.models.checkpoint.source import Source, failing_to_load, find_source
from app.models.folder.headers import Entry, read_entries
from app.models.folder.model_folder import require_folder, weight_files
from app.models.served_model import context_size
from app.models.state_shapes import state_bytes
from app.models.weights.int4_linear import GROUP_SIZE
from app.models.weights.quantization import quantized_bytes

# safetensors' names of number types; others (float8, integers) are counted in their own size and never converted.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Weights of a model for each in its file: an embedding may be the output layer, too.
MOST_PER_VALUE = 2


@dataclass(frozen=True)
class Footprint:
    """Memory that a model will take, in bytes.

    ``is_mapped``: the weights stay in the page cache, mapped from their files, where the system
    counts them as available.
    """

    weight_bytes: int
    kv_bytes: int
    is_mapped: bool

    @property
    def num_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes


@dataclass(frozen=True)
class Inspected:
    """``footprint`` is None for a hub id, whose files are not here to be measured."""

    task: Task
    footprint: Footprint | None


def inspect(plan: ModelPlan) -> Inspected:
    """Read what ``plan``'s model says of itself. Raises ``ModelLoadError`` or ``DeviceError``."""
    require_folder(plan)
    settings = served_settings(plan.settings)
    is_folder = Path(settings.model).exists()
    source = find_source(settings, plan.task)
    with failing_to_load(source.path):
        return Inspected(source.task, predict(source, settings) if is_folder else None)


def resident_weight_bytes(plan: ModelPlan) -> int:
    """What the weights of ``plan``'s model will take; 0 for a hub id. Raises ``ModelLoadError`` or ``DeviceError``.

    Those that came in a few bits become 16, or what was asked for, before they get their form.
    """
    if not Path(plan.settings.model).exists():
        return 0
    settings = served_settings(plan.settings)
    source = find_source(settings, plan.task)
    with failing_to_load(source.path):
        if source.gguf is not None or source.coded is not None:
            return max(plain_bytes(source, settings), packed_bytes(source, settings))
        # On a CPU each weight is read from its file when its form is made; a GPU holds all of them before.
        if settings.quantization != "none" and choose_device(settings.device).type == "cpu":
            return packed_bytes(source, settings)
        return sum(loaded for loaded, _ in _sizes(source.config, settings))


def _sizes(config: PretrainedConfig, settings: Settings) -> list[tuple[int, int]]:
    """Of each tensor, once it is loaded, and in its file."""
    return [loaded_bytes(entry, _dtype(config, settings)) for entry in _all_entries(Path(settings.model))]


def _dtype(config: PretrainedConfig, settings: Settings) -> torch.dtype | None:
    """The one that is loaded; None: as it is stored."""
    wanted = choose_dtype(settings)
    return config.dtype if wanted == "auto" else wanted


def predict(source: Source, settings: Settings) -> Footprint:
    """What the model in the folder ``settings.model`` will take."""
    config = source.config
    if settings.quantization != "none":
        return predict_quantized(source, settings)
    if source.gguf is not None or source.coded is not None:
        kv = cache_bytes(source, settings, decoded_dtype(source, settings).itemsize)
        return Footprint(plain_bytes(source, settings), kv, is_mapped=False)
    dtype = _dtype(config, settings)
    sizes = _sizes(config, settings)
    is_same = all(loaded == stored for loaded, stored in sizes)
    is_mapped = is_same and choose_device(settings.device).type == "cpu"
    kv_dtype = dtype or torch.float32
    kv = cache_bytes(source, settings, kv_dtype.itemsize)
    return Footprint(sum(loaded for loaded, _ in sizes), kv, is_mapped)


def _all_entries(folder: Path) -> Iterator[Entry]:
    for path in weight_files(folder):
        yield from read_entries(path).values()


def predict_quantized(source: Source, settings: Settings) -> Footprint:
    """The same where ``settings`` quantise: by the model's shape, as its layers' forms have sizes of their own."""
    is_wide = COMPUTES_IN[settings.quantization] == "float32" and choose_device(settings.device).type == "cpu"
    item_bytes = 4 if is_wide else 2
    kv = cache_bytes(source, settings, item_bytes)
    return Footprint(packed_bytes(source, settings), kv, is_mapped=False)


def packed_bytes(source: Source, settings: Settings) -> int:
    """Weights in the forms that ``settings`` name, if any."""
    if settings.quantization == "none":
        return 0
    model = without_weights(source, settings)
    return quantized_bytes(model, settings.quantization, layers_in_4_bits(source, settings, model))


def layers_in_4_bits(source: Source, settings: Settings, model: nn.Module) -> dict[nn.Module, int]:
    """The layers that keep codes of four bits, and the inputs of a group of each."""
    if settings.quantization != "file":
        return {}
    if source.gguf is not None:
        return {layer: GROUP_SIZE for _, layer, _ in linear_tensors(model, source.gguf)}
    return {} if source.coded is None else layers_with_grids(model, source.coded)


def plain_bytes(source: Source, settings: Settings) -> int:
    """Weights that came in a few bits once they are decoded. Raises ``ModelLoadError`` where its metadata mean more."""
    model = without_weights(source, settings)
    num_values = int(model.num_parameters())
    if source.gguf is not None:
        num_told = sum(tensor.num_values for tensor in source.gguf.tensors.values())
    else:
        num_told = 0 if source.coded is None else source.coded.num_values
    if num_values > MOST_PER_VALUE * num_told:
        raise ModelLoadError(f"its metadata speak of {num_values} weights, it holds {num_told}")
    return num_values * decoded_dtype(source, settings).itemsize


def decoded_dtype(source: Source, settings: Settings) -> torch.dtype:
    """What weights that came in a few bits become when they are read."""
    return dtype_of_coded(source.config, settings) if source.gguf is None else dtype_of(source.gguf, settings)


def loaded_bytes(entry: Entry, dtype: torch.dtype | None) -> tuple[int, int]:
    """Bytes of one tensor once it is loaded as ``dtype`` (None: as it is stored), and in its file."""
    first, last = entry["data_offsets"]
    stored = int(last) - int(first)
    if dtype is None or entry["dtype"] not in FLOATS:
        return stored, stored
    return math.prod(entry["shape"]) * dtype.itemsize, stored


def cache_bytes(source: Source, settings: Settings, item_bytes: int) -> int:
    """What keys and values of all sequences take, and states; a decoder that reads another text has those of that,
    too.
    """
    if source.task == "generate":
        return kv_bytes(source.config, settings, item_bytes) + all_state_bytes(source, settings)
    return 2 * kv_bytes(source.config, settings, item_bytes) if source.task == "seq2seq" else 0


def all_state_bytes(source: Source, settings: Settings) -> int:
    """States of all rows, of what is kept beside them, and of those that a pass works on."""
    kinds = layer_kinds(source.config, settings.max_context_tokens)
    if not any(kind.num_states for kind in kinds or ()):
        return 0
    num_slots = 2 * settings.max_batch_size + num_snapshots(settings)
    return num_slots * state_bytes(without_weights(source, settings))


def kv_bytes(config: PretrainedConfig, settings: Settings, item_bytes: int) -> int:
    """A full KV cache: keys and values of every layer, sequence and position. An estimate for rare layouts."""
    text = config.get_text_config()
    num_heads = int(text.num_attention_heads) if hasattr(text, "num_attention_heads") else 0
    if not num_heads:
        return 0
    num_kv_heads = 1 if getattr(text, "multi_query", False) else getattr(text, "num_key_value_heads", None) or num_heads
    head_size = getattr(text, "head_dim", None) or int(text.hidden_size) // num_heads
    num_tokens = min(settings.max_context_tokens, context_size(config) or settings.max_context_tokens)
    num_values = 2 * int(num_kv_heads) * int(head_size)
    if (rank := latent_rank(config)) is not None:
        # Latents, of which every pass makes keys and values, and the part of the keys that is rotated.
        num_values = int(rank) + int(getattr(text, "qk_rope_head_dim", 0))
    per_layer = num_values * item_bytes
    kinds = layer_kinds(config, num_tokens) or (FULL,) * int(text.num_hidden_layers)
    num_entries = sum(kind.num_entries(num_tokens, most_new_tokens(settings)) for kind in kinds)
    return per_layer * num_entries * settings.max_batch_size
