"""8-bit layers in tiles compute what their codes and scales say, each row by itself."""

from __future__ import annotations

import pytest
import torch

from app.models.int8_linear import Int8TileLinear, has_tiles

pytestmark = pytest.mark.skipif(not has_tiles(), reason="this CPU does not multiply 8-bit integers in tiles")


def layer_of(num_in: int, num_out: int, *, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(num_in * 1000 + num_out)
    return torch.nn.Linear(num_in, num_out, bias=bias)


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Each row in 255 steps of its own, in double precision."""
    steps = rows.detach().double().abs().amax(1, keepdim=True) / 127
    return (rows.detach().double() / steps).round() * steps


@pytest.mark.parametrize("num_rows", [1, 3, 16, 101])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_in", "num_out"), [(64, 64), (32, 256), (50, 100), (96, 1), (7, 65)])
@torch.inference_mode()
def test_the_product_is_that_of_the_rounded_numbers(num_in, num_out, bias, num_rows):
    layer = layer_of(num_in, num_out, bias=bias)
    inputs = torch.randn(num_rows, num_in, generator=torch.Generator().manual_seed(num_rows)) * 3
    found = Int8TileLinear(layer)(inputs)
    expected = rounded(inputs) @ rounded(layer.weight).T + (layer.bias.double() if bias else 0)
    # A number that lies between two steps may go to either.
    assert (found.double() - expected).abs().max() < 1e-2 * expected.abs().max()
    assert (found.double() - expected).abs().median() < 1e-5 * expected.abs().max()


@torch.inference_mode()
def test_a_row_does_not_depend_on_what_shares_its_pass():
    layer = Int8TileLinear(layer_of(96, 80))
    quiet, loud = torch.randn(1, 96), 1000 * torch.randn(5, 96)
    assert torch.equal(layer(torch.cat([loud, quiet]))[5:], layer(quiet))


@torch.inference_mode()
def test_sums_are_exact_at_the_extremes_and_zeros_stay_zeros():
    for num_in, num_rows in ((64, 1), (896, 1), (4864, 16), (897, 129)):
        layer = layer_of(num_in, 70, bias=False)
        layer.weight.data.fill_(1.0)
        quantised = Int8TileLinear(layer)
        torch.testing.assert_close(quantised(torch.ones(num_rows, num_in)), torch.full((num_rows, 70), float(num_in)))
        assert quantised(torch.zeros(num_rows, num_in)).abs().max() == 0


@torch.inference_mode()
def test_leading_dimensions_and_strides_of_the_input_do_not_matter():
    layer = Int8TileLinear(layer_of(64, 10))
    assert layer(torch.zeros(2, 3, 64).bfloat16()).shape == (2, 3, 10)
    transposed = torch.randn(64, 33).T
    assert torch.equal(layer(transposed), layer(transposed.contiguous()))


@torch.inference_mode()
def test_strides_of_the_weight_do_not_matter():
    plain, strided = layer_of(64, 48), layer_of(64, 48)
    strided.weight = torch.nn.Parameter(strided.weight.detach().t().contiguous().t())
    inputs = torch.randn(3, 64)
    assert torch.equal(Int8TileLinear(strided)(inputs), Int8TileLinear(plain)(inputs))
