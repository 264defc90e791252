"""8-bit layers lose nothing of their inputs that shows, each row by itself, whichever way they multiply."""

from __future__ import annotations

import pytest
import torch

from app.models.weights import int8_linear
from app.models.weights.int8_linear import Int8Linear, Int8TileLinear, Int8VectorLinear, has_exact_sums, has_tiles

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="this CPU does not multiply 8-bit integers in tiles")
KINDS = [Int8VectorLinear, pytest.param(Int8TileLinear, marks=needs_tiles)]


def layer_of(num_in: int, num_out: int, *, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(num_in * 1000 + num_out)
    return torch.nn.Linear(num_in, num_out, bias=bias).requires_grad_(False)


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """Each output's weights in 255 steps of its own, in double precision."""
    steps = weight.double().abs().amax(1, keepdim=True) / 127
    return (weight.double() / steps).round() * steps


def inputs_of(num_rows: int, num_in: int) -> torch.Tensor:
    return torch.randn(num_rows, num_in, generator=torch.Generator().manual_seed(num_rows)) * 3


@pytest.mark.parametrize("num_rows", [1, 3, 16, 101])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_in", "num_out"), [(64, 64), (32, 256), (50, 100), (96, 1), (7, 65), (300, 5000)])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_the_product_is_that_of_the_rounded_weights_and_the_inputs(kind, num_in, num_out, bias, num_rows):
    layer, inputs = layer_of(num_in, num_out, bias=bias), inputs_of(num_rows, num_in)
    found = kind(layer)(inputs)
    expected = inputs.double() @ rounded(layer.weight).T + (layer.bias.double() if bias else 0)
    errors = (found.double() - expected).abs() / inputs.double().norm(dim=1, keepdim=True)
    longest = layer.weight.double().norm(dim=1).max()
    # A weight that lies between two steps may go to either.
    assert errors.max() < 5e-3 * longest
    assert errors.median() < 1e-4 * longest


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_an_outlier_among_the_inputs_does_not_blur_the_others(kind):
    layer, inputs = layer_of(128, 96), inputs_of(5, 128)
    inputs[:, 7] = 900.0
    layer.weight[:, 7] = 0.0
    expected = inputs.double() @ rounded(layer.weight).T + layer.bias.double()
    found = kind(layer)(inputs).double()
    # A single byte per input, in steps of 7, would leave nothing of the others.
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_inputs_with_outlier_weights_have_finer_codes_for_them(kind):
    layer, inputs = layer_of(128, 96), inputs_of(5, 128)
    layer.weight[:, [3, 77]] *= 40
    made = kind(layer)
    assert {3, 77} <= set(made.columns[128:].tolist())
    expected = inputs.double() @ layer.weight.double().T + layer.bias.double()
    plain = inputs.double() @ rounded(layer.weight).T + layer.bias.double()
    error = (made(inputs).double() - expected).abs().mean()
    assert error < 0.1 * (plain - expected).abs().mean()
    assert kind(layer_of(128, 96)).columns is None


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_large_inputs_have_finer_codes_without_stretching_the_range(kind):
    layer, inputs = layer_of(128, 96), inputs_of(5, 128)
    inputs[:, [5, 90]] *= 300
    made = kind(layer, inputs.square().mean(0))
    assert {5, 90} <= set(made.columns[128:].tolist())
    expected = inputs.double() @ layer.weight.double().T + layer.bias.double()
    plain = inputs.double() @ rounded(layer.weight).T + layer.bias.double()
    error = (made(inputs).double() - expected).abs().mean()
    assert error < 0.2 * (plain - expected).abs().mean()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_an_output_that_reads_nothing_but_an_outlier_does_not_stretch_the_others(kind):
    layer, inputs = layer_of(128, 96), inputs_of(5, 128)
    layer.weight[:, [3, 77]] *= 40
    layer.weight[10] = 0.0
    layer.weight[10, 3] = 5.0
    found, expected = kind(layer)(inputs), inputs.double() @ layer.weight.double().T + layer.bias.double()
    assert (found.double() - expected).abs().max() < 0.01 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_row_does_not_depend_on_what_shares_its_pass(kind):
    layer = kind(layer_of(96, 80))
    quiet, loud = torch.randn(1, 96), 1000 * torch.randn(5, 96)
    assert torch.equal(layer(torch.cat([loud, quiet]))[5:], layer(quiet))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_however_many_rows_share_a_pass_each_is_the_same_where_weights_have_outliers(kind, bias):
    plain, energies = layer_of(576, 96, bias=bias), torch.rand(576)
    plain.weight[:, [3, 77]] *= 30
    energies[[5, 300]] *= 1000
    layer, inputs = kind(plain, energies), inputs_of(24, 576) * torch.logspace(-6, 6, 24)[:, None]
    together = layer(inputs)
    assert layer.columns is not None
    for count in (1, 2, 3, 5, 16):
        assert torch.equal(torch.cat([layer(some) for some in inputs.split(count)]), together)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_what_a_row_gave_stays_when_the_next_one_comes(kind):
    layer, inputs = kind(layer_of(96, 80)), inputs_of(2, 96)
    first = layer(inputs[:1])
    kept = first.clone()
    layer(inputs[1:])
    assert torch.equal(first, kept)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_sums_are_exact_at_the_extremes_and_zeros_stay_zeros(kind):
    for num_in, num_rows in ((64, 1), (896, 1), (4864, 16), (897, 129)):
        layer = layer_of(num_in, 70, bias=False)
        layer.weight.fill_(1.0)
        quantised = kind(layer)
        for sign in (1, -1):
            inputs = torch.full((num_rows, num_in), float(sign))
            torch.testing.assert_close(quantised(inputs), torch.full((num_rows, 70), float(sign * num_in)))
        assert quantised(torch.zeros(num_rows, num_in)).abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_rows_with_no_finite_range_do_not_touch_others(kind):
    layer, inputs = kind(layer_of(64, 10)), inputs_of(4, 64)
    expected = layer(inputs)[2:]
    inputs[0, 3], inputs[1, 5] = torch.nan, torch.inf
    found = layer(inputs)
    assert not found[:2].isfinite().any()
    assert torch.equal(found[2:], expected)
    tiny = layer(torch.full((1, 64), 1e-44))
    assert torch.equal(tiny, layer(torch.zeros(1, 64)))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_leading_dimensions_and_strides_of_the_input_do_not_matter(kind):
    layer = kind(layer_of(64, 10))
    assert layer(torch.zeros(2, 3, 64).bfloat16()).shape == (2, 3, 10)
    assert layer(torch.zeros(0, 64)).shape == (0, 10)
    transposed = torch.randn(64, 33).T
    assert torch.equal(layer(transposed), layer(transposed.contiguous()))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_strides_and_dtype_of_the_weight_do_not_matter(kind):
    plain, strided, half = layer_of(64, 48), layer_of(64, 48), layer_of(64, 48)
    for layer in (plain, strided, half):
        layer.weight.copy_(layer.weight.bfloat16())
    strided.weight = torch.nn.Parameter(strided.weight.t().contiguous().t(), requires_grad=False)
    half.weight = torch.nn.Parameter(half.weight.bfloat16(), requires_grad=False)
    inputs, expected = torch.randn(3, 64), None
    for layer in (plain, strided, half):
        found = kind(layer)(inputs)
        expected = found if expected is None else expected
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("is_exact", "largest"), [(True, 127), (False, 63)])
@torch.inference_mode()
def test_a_part_of_an_input_has_as_many_steps_as_the_cpu_can_add(monkeypatch, is_exact, largest):
    if is_exact and not has_exact_sums():
        pytest.skip("this CPU has no exact 8-bit sums")
    monkeypatch.setattr(int8_linear, "has_exact_sums", lambda: is_exact)
    layer = Int8VectorLinear(layer_of(64, 64))
    assert layer.largest == largest
    assert isinstance(layer, Int8Linear)
