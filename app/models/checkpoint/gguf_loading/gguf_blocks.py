"""The 4-bit blocks of a GGUF file (Q4_0, Q4_1, Q4_K, as ggml-common.h lays them out), unpacked. Inference thread only.

``attach`` finds the blocks of a model's linear layers by their names, and refers to them only where the weights that
transformers made of the file are the ones that they mean: so nothing here has to know how a family's rows are ordered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from app.models.folder.gguf.gguf_header import GgufHeader, Tensor
from app.models.folder.gguf.gguf_kinds import FOUR_BITS
from app.models.weights.grids import Blocks, Grid, set_grid

# Names of a layer's parts here and in files.
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "self_attn.dense": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
LAYER = re.compile(r"(?:.*\.)?layers\.(\d+)\.(.+)")
NUM_COMPARED_ROWS = 64
BLOCK = 32


@dataclass(frozen=True)
class GgufGrid(Grid):
    """A tensor of a GGUF file; ``order``: heads whose rows the file has in pairs, which transformers takes apart."""

    path: Path
    tensor: Tensor
    num_paired_heads: int = 0

    def read(self) -> Blocks:
        return self.first(self.tensor.shape[0])

    def first(self, num_rows: int) -> Blocks:
        """The first outputs: ``num_rows`` of them, or as many more as make whole heads."""
        num_out, num_in = self.tensor.shape
        of_head = num_out // self.num_paired_heads if self.num_paired_heads else 1
        num_rows = min(-(-num_rows // of_head) * of_head, num_out)
        raw = np.fromfile(self.path, np.uint8, self.tensor.num_bytes // num_out * num_rows, offset=self.tensor.start)
        blocks = UNPACK[self.tensor.kind.name](torch.from_numpy(raw).view(-1, self.tensor.kind.block_bytes))
        steps, borders = (part.view(num_rows, -1) for part in (blocks.steps, blocks.borders))
        blocks = Blocks(blocks.codes.view(num_rows, num_in), steps, borders)
        if not self.num_paired_heads:
            return blocks
        return blocks.rows(torch.arange(num_rows).view(-1, of_head // 2, 2).transpose(1, 2).reshape(-1))


def linear_tensors(model: nn.Module, header: GgufHeader) -> Iterator[tuple[str, nn.Linear, Tensor]]:
    """The linear layers whose weights the file has in four bits: their names, and the tensors."""
    for name, layer in model.named_modules():
        match = LAYER.fullmatch(name)
        if type(layer) is nn.Linear and match and match[2] in PARTS:
            tensor = header.tensors.get(f"blk.{match[1]}.{PARTS[match[2]]}.weight")
            if tensor is not None and tensor.kind.name in FOUR_BITS and tensor.shape == tuple(layer.weight.shape):
                yield name, layer, tensor


def attach(model: PreTrainedModel, header: GgufHeader) -> int:
    """Have the layers of ``model``, which was read from the file, refer to their blocks; how many do."""
    config = model.config.get_text_config()
    heads = {int(getattr(config, name, None) or 0) for name in ("num_attention_heads", "num_key_value_heads")}
    num_found = 0
    for _, layer, tensor in linear_tensors(model, header):
        grids = [GgufGrid(header.path, tensor, count) for count in (0, *sorted(heads - {0}))]
        found = next((grid for grid in grids if _means(grid, layer)), None)
        set_grid(layer, found)
        num_found += found is not None
    return num_found


def _means(grid: GgufGrid, layer: nn.Linear) -> bool:
    """Whether ``layer``'s weight is what the blocks say, but for rounding to its dtype."""
    if grid.num_paired_heads and layer.out_features % (2 * grid.num_paired_heads):
        return False
    told = grid.first(NUM_COMPARED_ROWS).weight()
    found = layer.weight.detach()[: len(told)].float()
    return bool((told - found).abs().max() <= torch.finfo(layer.weight.dtype).eps * told.abs().max())


def _half(raw: torch.Tensor, start: int) -> torch.Tensor:
    """A float16 of each block, float32 ``(blocks, 1)``."""
    return raw[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(raw: torch.Tensor) -> torch.Tensor:
    """``(n, bytes)`` to ``(n, 2 * bytes)``: the low halves of all bytes, then the high ones."""
    return torch.cat((raw & 15, raw >> 4), dim=1)


def _q4_0(raw: torch.Tensor) -> Blocks:
    step = _half(raw, 0)
    return Blocks(_nibbles(raw[:, 2:]), step, -8 * step)


def _q4_1(raw: torch.Tensor) -> Blocks:
    return Blocks(_nibbles(raw[:, 4:]), _half(raw, 0), _half(raw, 2))


def _q4_k(raw: torch.Tensor) -> Blocks:
    """Blocks of 256: eight of 32, whose steps and borders are 6 bits each, packed into 12 bytes."""
    low, middle, high = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scales = torch.cat((low & 63, (high & 15) | ((low >> 6) << 4)), dim=1)
    minima = torch.cat((middle & 63, (high >> 4) | ((middle >> 6) << 4)), dim=1)
    codes = _nibbles(raw[:, 16:].reshape(-1, BLOCK))
    return Blocks(codes, _half(raw, 0) * scales, -_half(raw, 2) * minima)


UNPACK = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k}
