"""torch's int8 layers use all 8 bits where the CPU adds them exactly, and 7 where it does not."""

from __future__ import annotations

import pytest
import torch

from app.models import quantization
from app.models.quantization import FullRangeLinear, has_exact_sums, to_int8


def quantised(weight: torch.Tensor) -> torch.nn.Module:
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = torch.nn.Parameter(weight)
    model = torch.nn.Sequential(layer)
    to_int8(model, in_tiles=False)
    return model[0]


@pytest.mark.parametrize(("is_exact", "num_steps"), [(True, 256), (False, 128)])
@torch.inference_mode()
def test_activations_have_as_many_steps_as_the_cpu_can_add(monkeypatch, is_exact, num_steps):
    if is_exact and not has_exact_sums():
        pytest.skip("this CPU has no exact 8-bit sums")
    monkeypatch.setattr(quantization, "has_exact_sums", lambda: is_exact)
    layer = quantised(torch.eye(64))
    assert isinstance(layer, FullRangeLinear) is is_exact
    outputs = layer(torch.rand(64, 64, generator=torch.Generator().manual_seed(0)))
    assert num_steps - 2 <= len(outputs.unique()) <= num_steps


@torch.inference_mode()
def test_full_range_sums_are_exact_at_the_extremes():
    if not has_exact_sums():
        pytest.skip("this CPU has no exact 8-bit sums")
    for num_in, num_rows in ((64, 1), (896, 1), (4864, 16), (897, 129)):
        layer = quantised(torch.ones(70, num_in))
        assert torch.allclose(layer(torch.ones(num_rows, num_in)), torch.tensor(float(num_in)), rtol=0.01)
