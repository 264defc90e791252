"""4-bit layers compute what their codes, scales and zeros say, for every shape."""

from __future__ import annotations

import pytest
import torch

from app.models.compiled.products import form_of, product, weights_of
from app.models.weights.grids import Blocks, Grid, merged_grid, set_grid
from app.models.weights.int4_linear import GROUP_SIZE, Int4Linear, int4_bytes, largest_difference, to_codes


def layer_of(num_in: int, num_out: int, *, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(num_in * 1000 + num_out)
    return torch.nn.Linear(num_in, num_out, bias=bias)


def reference(layer: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """The product in double precision with each weight rounded by hand, one group at a time."""
    weight = torch.zeros_like(layer.weight, dtype=torch.float64)
    for start in range(0, layer.in_features, GROUP_SIZE):
        group = layer.weight[:, start : start + GROUP_SIZE].detach()
        if group.shape[1] < GROUP_SIZE:
            group = torch.nn.functional.pad(group, (0, GROUP_SIZE - group.shape[1]))
        least, largest = group.min(1).values, group.max(1).values
        scale = ((largest - least) / 15).bfloat16().double()
        zero = (least + 8 * scale.float()).bfloat16().double()
        codes = ((group.double() - zero[:, None]) / scale[:, None]).round().clamp(-8, 7)
        width = min(GROUP_SIZE, layer.in_features - start)
        weight[:, start : start + width] = (codes * scale[:, None] + zero[:, None])[:, :width]
    bias = 0 if layer.bias is None else layer.bias.detach().double()
    return inputs.double() @ weight.T + bias


@pytest.mark.parametrize("num_rows", [1, 3, 64, 101])
@pytest.mark.parametrize(("num_in", "num_out"), [(64, 64), (32, 256), (50, 100), (96, 1), (7, 65)])
@torch.inference_mode()
def test_the_product_is_that_of_the_rounded_weights(num_in, num_out, num_rows):
    layer = layer_of(num_in, num_out)
    inputs = torch.randn(num_rows, num_in).bfloat16()
    found = Int4Linear(layer.weight, layer.bias)(inputs)
    expected = reference(layer, inputs)
    assert found.shape == (num_rows, num_out)
    assert (found.double() - expected).abs().max() < 0.02 * expected.abs().max().clamp(min=1)


@torch.inference_mode()
def test_leading_dimensions_are_kept():
    assert Int4Linear(layer_of(64, 10).weight, None)(torch.zeros(2, 3, 64).bfloat16()).shape == (2, 3, 10)


@pytest.mark.parametrize("num_rows", [2, 64])
@torch.inference_mode()
def test_strides_of_the_input_do_not_matter(num_rows):
    layer = Int4Linear(layer_of(64, 64).weight, None)
    transposed = torch.randn(64, num_rows).bfloat16().T
    assert torch.equal(layer(transposed), layer(transposed.contiguous()))


def test_no_weight_is_off_by_more_than_a_step():
    weight = torch.randn(64, 4 * GROUP_SIZE, generator=torch.Generator().manual_seed(1))
    codes, scales_and_zeros = to_codes(weight)
    scales, zeros = (scales_and_zeros[:, :, i].T.float().repeat_interleave(GROUP_SIZE, 1) for i in (0, 1))
    assert (codes.min(), codes.max()) == (-8, 7)
    assert ((codes * scales + zeros - weight).abs() <= scales).all()


@pytest.mark.parametrize("value", [0.0, 0.37, -2.0])
def test_equal_weights_come_back(value):
    codes, scales_and_zeros = to_codes(torch.full((64, GROUP_SIZE), value))
    scales, zeros = scales_and_zeros[0, :, 0].float(), scales_and_zeros[0, :, 1].float()
    restored = codes[:, 0] * scales + zeros
    assert torch.allclose(restored, torch.full((64,), value), rtol=0.005)


def test_a_weight_takes_five_bits():
    layer = Int4Linear(torch.randn(256, 256), None)
    assert sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers()) == 256 * 256 * 5 // 8


@pytest.mark.parametrize("group_size", [32, 64, 128, 256])
@pytest.mark.parametrize("is_ordered", [False, True])
def test_codes_of_a_file_keep_their_groups_and_the_order_of_its_inputs(group_size, is_ordered):
    generator = torch.Generator().manual_seed(group_size)
    num_in, num_out = 512, 72
    codes = torch.randint(0, 16, (num_out, num_in), generator=generator).to(torch.uint8)
    # Numbers that bfloat16 has exactly.
    steps = torch.randint(1, 5, (num_out, num_in // group_size), generator=generator) / 64
    order = torch.randperm(num_in, generator=generator) if is_ordered else None
    blocks = Blocks(codes, steps, -8 * steps, order)
    layer = Int4Linear.of_blocks(blocks, None)
    assert (layer.group_size, largest_difference(blocks)) == (group_size, 0)
    rows = torch.randn(5, num_in, generator=generator).bfloat16()
    expected = rows.float() @ blocks.weight().t()
    torch.testing.assert_close(layer(rows).float(), expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    form = form_of(layer)
    assert (form is None) == is_ordered
    if form is not None:
        torch.testing.assert_close(product(rows, form, num_out, weights_of(layer)), layer(rows), rtol=0, atol=0)
    used = sum(tensor.numel() * tensor.element_size() for tensor in (layer.packed, layer.scales_and_zeros))
    assert used == int4_bytes(num_in, num_out, has_bias=False, group_size=group_size)


class Held(Grid):
    """Codes that are there."""

    def __init__(self, blocks: Blocks):
        self._blocks = blocks
        self.group_size = blocks.codes.shape[1] // blocks.steps.shape[1]

    @property
    def order(self) -> torch.Tensor | None:
        return self._blocks.order

    def read(self) -> Blocks:
        return self._blocks


def test_codes_are_merged_where_groups_and_orders_are_alike():
    def layer(num_groups: int = 2, order: torch.Tensor | None = None) -> torch.nn.Module:
        made = torch.nn.Linear(64, 8)
        codes = torch.ones(8, 64, dtype=torch.uint8)
        set_grid(made, Held(Blocks(codes, torch.ones(8, num_groups), torch.zeros(8, num_groups), order)))
        return made

    turned = torch.arange(64).flip(0)
    for pair in ([layer(), layer()], [layer(order=turned), layer(order=turned.clone())]):
        grid = merged_grid(pair)
        assert grid is not None
        merged = grid.read()
        assert merged.codes.shape == (16, 64)
        assert (merged.order is None) == (grid.order is None)
    for pair in (
        [layer(), layer(1)],
        [layer(), layer(order=turned)],
        [layer(order=turned), layer()],
        [layer(order=turned), layer(order=torch.arange(64))],
        [layer(), torch.nn.Linear(64, 8)],
    ):
        assert merged_grid(pair) is None
