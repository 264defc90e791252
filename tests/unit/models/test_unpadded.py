"""Encoders whose layers take texts without padding say what they said before, whatever stands beside a text."""

from __future__ import annotations

import copy

import pytest
import torch

from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.encoders.unpadded import can_unpad, is_unpadded, passing, unpad

LENGTHS = [9, 3, 14, 1, 14, 6]


def loaded(model_folder, name):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder(name))})
    return load_checkpoint(settings, lambda _: None).model


def batch_of(lengths):
    rng = torch.Generator().manual_seed(1)
    rows = [torch.randint(5, 60, (length,), generator=rng).tolist() for length in lengths]
    longest = max(lengths)
    ids = [row + [0] * (longest - len(row)) for row in rows]
    return rows, torch.tensor(ids), torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize(
    "name", ["bert-classify", "roberta-rerank", "electra-classify", "bert-entities", "xlmr-classify"]
)
@torch.inference_mode()
def test_every_text_has_the_numbers_that_it_has_alone(model_folder, name):
    model = loaded(model_folder, name)
    assert can_unpad(model)
    plain = copy.deepcopy(model)
    reads_states = name.endswith("entities")
    unpad(model, reads_states=reads_states)
    assert is_unpadded(model) and model.base_model.encoder.is_first_enough is not reads_states
    rows, ids, mask = batch_of(LENGTHS)
    with passing(model, LENGTHS):
        found = model(input_ids=ids, attention_mask=mask).logits
    for row, numbers in zip(rows, found, strict=True):
        alone = plain(input_ids=torch.tensor([row])).logits[0]
        torch.testing.assert_close(numbers[: len(row)] if reads_states else numbers, alone, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_pass_that_tells_no_lengths_is_what_it_was(model_folder):
    model = loaded(model_folder, "bert-classify")
    plain = copy.deepcopy(model)
    unpad(model, reads_states=False)
    _, ids, mask = batch_of(LENGTHS)
    for given in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids[:1], "output_hidden_states": True}):
        expected, found = plain(**given), model(**given)
        torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
        for one, other in zip(found.hidden_states or (), expected.hidden_states or (), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


class _MeanHead(torch.nn.Module):
    def __init__(self, dense):
        super().__init__()
        self.dense = dense

    def forward(self, states):
        return self.dense(states.mean(dim=1))


@torch.inference_mode()
def test_a_head_that_reads_more_than_the_first_token_is_given_all(model_folder):
    model = loaded(model_folder, "bert-classify")
    model.bert.pooler = _MeanHead(model.bert.pooler.dense)
    unpad(model, reads_states=False)
    assert model.base_model.encoder.is_first_enough is False


@pytest.mark.parametrize("name", ["modernbert-classify", "mpnet-classify", "albert-classify", "qwen2"])
def test_layers_of_another_kind_are_left_alone(model_folder, name):
    assert not can_unpad(loaded(model_folder, name))
