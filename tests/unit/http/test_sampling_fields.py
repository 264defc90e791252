"""From a request's fields to the engine's parameters."""

from __future__ import annotations

from dataclasses import fields

import pytest

from app.core.work.sampling_params import SamplingDefaults, SamplingParams
from app.http.schemas.llama_cpp_fields import LlamaCppFields, switched_off
from app.http.schemas.native_bodies import CompleteBody
from app.http.schemas.sampling_fields import NAMED_ALIKE, SamplingOptions

DEFAULTS = SamplingDefaults(temperature=0.5, top_p=0.8, top_k=7, repetition_penalty=1.3)
# Not copied: each has a form of its own in the engine, or the body decides it from several fields.
OF_ANOTHER_FORM = {"logit_bias", "stop", "stop_token_ids", "seed"}


def params_of(**sent) -> SamplingParams:
    return CompleteBody(prompt="a", **sent).sampling(DEFAULTS, 9)


@pytest.mark.parametrize("name", sorted(set(NAMED_ALIKE) - {"ignore_eos", "top_k"}))
def test_a_number_that_is_sent_reaches_the_engine_by_its_name(name):
    assert getattr(params_of(**{name: 0.25}), name) == 0.25


def test_a_silent_field_takes_the_models_default_and_else_the_engines():
    assert params_of() == SamplingParams(9, temperature=0.5, top_p=0.8, top_k=7, repetition_penalty=1.3)


def test_zero_and_false_are_no_silence():
    sent = params_of(temperature=0, top_k=0, ignore_eos=False, repetition_penalty=1)
    assert (sent.temperature, sent.top_k, sent.ignore_eos, sent.repetition_penalty) == (0.0, 0, False, 1.0)
    assert params_of(ignore_eos=True).ignore_eos and params_of(top_k=-1).top_k == 0


def test_every_field_of_both_is_copied_or_known_to_differ():
    common = {one.name for one in fields(SamplingParams)} & SamplingOptions.model_fields.keys()
    assert set(NAMED_ALIKE) | OF_ANOTHER_FORM == common


def test_samplers_that_a_list_leaves_out_are_off_by_the_names_of_their_parameters():
    off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "temperature": 1.0}
    assert off.items() <= LlamaCppFields(samplers=[]).overrides().items()
    assert not {"typical_p", "top_k"} & LlamaCppFields(samplers=["typ_p", "top_k"]).overrides().keys()
    assert LlamaCppFields(samplers=["infill"]).overrides()["temperature"] == 0.0
    assert switched_off("top_k") == {"top_k": 0} and switched_off("dry") == {}
