"""8-bit layers whose codes lie in memory as weights do: the form that compiled steps read.

The codes are those of ``int8_linear``, inputs stay float32: nothing of them is rounded. A few rows belong to the
compiled step; here, passes of many, which widen a part of the codes after the other, as ``wide_linear`` does. Some 4 to
32 rows take up to 1.8 times as long as packed codes do (docs/performance.md). Inference thread only.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear, pad

from app.models.weights.int8_codes import Codes
from app.models.weights.int8_linear import Int8VectorLinear
from app.models.weights.layer_inputs.outliers import NUM_APART
from app.models.weights.wide_linear import PART_NUMBERS

# Codes in a vector register that are read at once; a row is a whole number of these.
STEP = 32
# Columns for finer codes that every layer has room for, so that layers of a model lie alike.
MOST_APART = 2 * NUM_APART
# Codes that are read as one number.
CODES_PER_WORD = 4


def width_of(num_in: int) -> int:
    """Codes in a row of a layer with so many inputs."""
    return -(-(num_in + MOST_APART) // STEP) * STEP


class PlainInt8Linear(nn.Module):
    """What ``layer`` computes, ``(.., in)`` to float32 ``(.., out)``, on ``codes`` ``(out, width_of(in))``.

    Column i reads input ``columns[i]`` times ``factors[i]``; those that fill up have the factor 0. ``word_columns`` and
    ``word_factors`` are the same in the order of a word's bytes: first what all lowest bytes read, then the next.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    columns: torch.Tensor
    factors: torch.Tensor
    word_columns: torch.Tensor
    word_factors: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, layer: Int8VectorLinear):
        super().__init__()
        self.out_features, self.in_features = layer.out_features, layer.in_features
        coded = layer.codes()
        self._num_columns = coded.codes.shape[1]
        self._has_finer = coded.columns is not None
        filling = width_of(self.in_features) - self._num_columns
        columns = torch.arange(self.in_features) if coded.columns is None else coded.columns
        factors = torch.ones(self.in_features) if coded.factors is None else coded.factors
        self.register_buffer("codes", pad(coded.codes, (0, filling)).contiguous())
        self.register_buffer("scales", coded.scales)
        self.register_buffer("columns", pad(columns, (0, filling)))
        self.register_buffer("factors", pad(factors, (0, filling)))
        self.register_buffer("word_columns", by_bytes(self.columns))
        self.register_buffer("word_factors", by_bytes(self.factors))
        self.register_buffer("bias", layer.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.reshape(-1, self.in_features).float().index_select(1, self.columns).mul_(self.factors)
        parts = torch.split(self.codes, max(PART_NUMBERS // self.codes.shape[1], 1))
        outputs = torch.cat([linear(rows, part.float()) for part in parts], dim=1).mul_(self.scales)
        if self.bias is not None:
            outputs.add_(self.bias)
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def packed_again(self) -> Int8VectorLinear:
        """The layer that this one was made from."""
        used = slice(self._num_columns)
        columns, factors = (self.columns[used], self.factors[used]) if self._has_finer else (None, None)
        coded = Codes(self.codes[:, used].contiguous(), self.scales, columns, factors)
        return Int8VectorLinear.of_codes(coded, self.in_features, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def by_bytes(values: torch.Tensor) -> torch.Tensor:
    """A value of each code, in the order of bytes within words of ``CODES_PER_WORD`` codes."""
    return values.view(-1, CODES_PER_WORD).t().reshape(-1).contiguous()
