"""The cache is handed to a model under the name that its own forward has for it, in every version of transformers."""

from __future__ import annotations

from functools import wraps

import pytest
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from app.models.checkpoint.cache_argument import cache_argument, cache_argument_of
from app.models.weights.fused.layer_patterns import takes_the_same

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 32}


def until_5_23(hidden_states, past_key_values=None, **kwargs): ...


def from_5_24(hidden_states, cache=None, **kwargs): ...


@wraps(from_5_24)
def from_5_24_that_takes_the_old_name_too(*args, **kwargs): ...


def of_no_kind(hidden_states, state=None): ...


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (until_5_23, "past_key_values"),
        (from_5_24, "cache"),
        (from_5_24_that_takes_the_old_name_too, "cache"),
        (of_no_kind, None),
    ],
)
def test_the_name_is_read_from_the_signature(forward, name):
    assert cache_argument(forward) == name


def test_a_model_and_its_layers_agree():
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    assert cache_argument_of(model) == cache_argument(model.model.layers[0].forward)


def test_a_layer_that_names_an_argument_of_a_later_version_is_not_replaced(monkeypatch):
    layer = LlamaDecoderLayer(LlamaConfig(**SMALL), 0)
    assert takes_the_same(layer)
    monkeypatch.setattr(layer, "forward", lambda hidden_states, cache=None, key_value_store=None, **options: None)
    assert not takes_the_same(layer)
    monkeypatch.setattr(layer, "forward", lambda hidden_states, key_value_store=None, **options: None)
    assert not takes_the_same(layer)
