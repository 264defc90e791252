"""The layers of a model that adapters can change, by the names that PEFT has for them. Inference thread only.

A host does not hold its module, in whose place another layout of the same weight may come. Fused layers compute several
of the family's own at once; what changes one of them changes a part of the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from app.models.weights.fused.fused_layers import FusedLayer
from app.models.weights.int4_linear import Int4Linear
from app.models.weights.int8_linear import Int8Linear
from app.models.weights.int8_plain import PlainInt8Linear
from app.models.weights.packing import PackedLinear

LINEAR = (nn.Linear, Int4Linear, Int8Linear, PlainInt8Linear, PackedLinear, Conv1D)


@dataclass(frozen=True)
class Host:
    """A module with ``num_in`` inputs, and the layers that it computes: name to first output and their number."""

    num_in: int
    num_out: int
    layers: Mapping[str, tuple[int, int]]


def hosts_of(model: PreTrainedModel) -> list[tuple[nn.Module, Host]]:
    """What adapters can change in ``model``: its linear layers, but for input and output embeddings."""
    outer = (model.get_input_embeddings(), model.get_output_embeddings())
    fused = {name: layer for name, layer in model.named_modules() if isinstance(layer, FusedLayer)}
    hosts = [host for name, layer in fused.items() for host in _of_fused(name, layer)]
    known = {id(module) for module, _ in hosts} | {id(module) for module in outer}
    for name, module in model.named_modules():
        if isinstance(module, LINEAR) and id(module) not in known:
            num_in, num_out = sizes_of(module)
            hosts.append((module, Host(num_in, num_out, {name: (0, num_out)})))
    return hosts


def shapes_of(hosts: list[Host]) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer by its name."""
    return {name: (host.num_in, count) for host in hosts for name, (_, count) in host.layers.items()}


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, however its weight lies."""
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    assert isinstance(module, nn.Linear | Int4Linear | Int8Linear | PlainInt8Linear | PackedLinear)
    return module.in_features, module.out_features


def _of_fused(name: str, layer: FusedLayer) -> Iterator[tuple[nn.Module, Host]]:
    for module, own in layer.merged_layers():
        num_in, num_out = sizes_of(module)
        places, first = {}, 0
        for part, count in own.items():
            places[f"{name}.{part}"] = (first, count)
            first += count
        assert first == num_out
        yield module, Host(num_in, num_out, places)
