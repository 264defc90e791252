"""Codes of 8 bits that lie as weights do are those that were packed, and compute the same but for rounded inputs."""

from __future__ import annotations

import pytest
import torch

from app.models.weights import int8_plain
from app.models.weights.int8_linear import Int8VectorLinear
from app.models.weights.int8_plain import PlainInt8Linear, width_of


def packed_layer(num_in: int, num_out: int, *, has_bias: bool, has_finer: bool) -> Int8VectorLinear:
    torch.manual_seed(num_in + num_out)
    linear = torch.nn.Linear(num_in, num_out, bias=has_bias).requires_grad_(False)
    energies = torch.ones(num_in)
    if has_finer:
        energies[3] = 1000.0
    layer = Int8VectorLinear(linear, energies)
    assert (layer.columns is not None) is has_finer
    return layer


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("has_finer", [True, False])
@pytest.mark.parametrize(("num_in", "num_out"), [(64, 64), (50, 100), (300, 500)])
@pytest.mark.parametrize("num_rows", [1, 17])
@torch.inference_mode()
def test_a_layer_that_is_unpacked_and_packed_again_is_the_same(
    monkeypatch, num_in, num_out, has_bias, has_finer, num_rows
):
    monkeypatch.setattr(int8_plain, "PART_NUMBERS", 10_000)
    packed = packed_layer(num_in, num_out, has_bias=has_bias, has_finer=has_finer)
    plain = PlainInt8Linear(packed)
    assert plain.codes.shape == (num_out, width_of(num_in)) and plain.codes.shape[1] % 32 == 0
    inputs = torch.randn(2, num_rows, num_in) * 3
    expected = packed(inputs)
    found = plain(inputs)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    # The packed layer rounds its inputs to 14 bits or more of the largest.
    assert (found - expected).abs().max() <= 2e-3 * expected.abs().max()
    assert torch.equal(plain.packed_again()(inputs), expected)


@torch.inference_mode()
def test_word_order_reads_the_input_that_each_byte_belongs_to():
    plain = PlainInt8Linear(packed_layer(40, 8, has_bias=False, has_finer=True))
    codes = plain.codes.view(torch.int32)
    for byte, columns in enumerate(plain.word_columns.view(4, -1)):
        found = (codes << (24 - 8 * byte)) >> 24
        assert torch.equal(found, plain.codes[:, byte::4].int())
        assert torch.equal(columns, plain.columns[byte::4])
