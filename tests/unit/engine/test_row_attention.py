"""Rows that decode attend to the same entries, with the same weights, as transformers' own attention says."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from app.engine.runners import row_attention as module_of_rows
from app.engine.runners.row_attention import row_attention


class Attending(nn.Module):
    """What transformers' function asks a module for."""

    def __init__(self, num_groups: int):
        super().__init__()
        self.num_key_value_groups = num_groups


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("num_groups", [1, 3])
@pytest.mark.parametrize("has_kernels", [True, False])
@torch.inference_mode()
def test_each_row_gets_what_transformers_computes(monkeypatch, dtype, num_rows, num_groups, has_kernels):
    monkeypatch.setattr(module_of_rows, "has_kernels_for", lambda dtype: has_kernels or dtype == torch.float32)
    torch.manual_seed(0)
    query = torch.randn(num_rows, 2 * num_groups, 1, 16).to(dtype)
    key, value = (torch.randn(num_rows, 2, 40, 16).to(dtype)[:, :, :30] for _ in range(2))
    mask = None
    if num_rows > 1:
        mask = torch.zeros(num_rows, 1, 1, 30, dtype=dtype)
        mask[0, ..., 12:] = torch.finfo(dtype).min
    module = Attending(num_groups)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, is_causal=False, scaling=0.3)
    found, _ = row_attention(module, query, key, value, mask, scaling=0.3, dropout=0.0)
    assert found.dtype == dtype and found.shape == expected.shape
    tolerance = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)
