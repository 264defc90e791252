"""Sequences give the same tokens on a compiled step as without; a step that computes something else is left out.

What is compiled runs here as it is, without a compiler; tests/chaos compiles it.
"""

from __future__ import annotations

import random

import pytest
import torch
from structlog.testing import capture_logs

from app.core.settings import load_settings
from app.engine.checks import features, steps
from app.engine.loading.build import Prepared, prepare
from app.engine.runners.compiled import CompiledRunner
from app.models.compiled.inductor import ROWS
from app.models.compiled.steps.step_graph import parts_of
from tests.compiled_steps import keep_plain, uncompiled_step
from tests.thinned import few_of
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt, run


@pytest.fixture
def has_package(monkeypatch):
    """Every model that could have a package has one; ``made`` are the steps, ``change`` spoils what a span gives."""

    class Packages:
        made: list = []  # noqa: RUF012  of one test

        @staticmethod
        def change(out: torch.Tensor) -> torch.Tensor:
            return out

    packages = Packages()
    packages.made = []

    def find(checkpoint, _settings):
        parts = parts_of(checkpoint)
        if isinstance(parts, str):
            return parts
        packages.made.append(uncompiled_step(parts, packages.change))
        return packages.made[-1]

    monkeypatch.setattr(steps, "find_step", find)
    monkeypatch.setattr(features, "find_step", find)
    return packages


def prepared(folder, **environ) -> Prepared:
    settings = load_settings({"FORKLIFT_MODEL": str(folder), "FORKLIFT_COMPILE": "auto", **environ})
    return prepare(settings, lambda _: None)


def num_calls(packages) -> int:
    return sum(sum(step.calls.values()) for step in packages.made)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_greedy_tokens_are_those_of_generate_across_the_growth_of_the_cache(
    model_folder, monkeypatch, has_package, family
):
    ready = prepared(model_folder(family))
    assert isinstance(ready.engine.runner, CompiledRunner)
    assert (ready.engine_name, ready.dropped) == ("mixed", ())
    before, log, model = num_calls(has_package), TokenLog(monkeypatch), load(model_folder(family))
    jobs = [greedy_job(random_prompt(random.Random(i), length), 20) for i, length in enumerate((1, 30, 250, 500))]
    run(ready.engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 20, eos_token_id=None)
    # The first token of each comes from its prompt.
    assert num_calls(has_package) - before == 4 * 19


def test_sequences_change_between_lone_and_shared_steps(model_folder, monkeypatch, has_package):
    ready = prepared(model_folder("llama"), FORKLIFT_MAX_BATCH_SIZE="3")
    assert isinstance(ready.engine.runner, CompiledRunner)
    log, model = TokenLog(monkeypatch), load(model_folder("llama"))
    jobs = [greedy_job(random_prompt(random.Random(i), 20 + i), num_new) for i, num_new in enumerate((25, 4, 12))]
    before = has_package.made[-1].calls
    run(ready.engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)
    after = has_package.made[-1].calls
    # 25 tokens: some beside one or two others, on the code for four rows, and some alone.
    assert all(after[num_rows] - before[num_rows] > 3 for num_rows in (1, 4))


def test_more_rows_than_there_is_code_for_decode_eagerly(model_folder, monkeypatch, has_package):
    monkeypatch.setattr(features, "pack", keep_plain)
    ready = prepared(model_folder("llama"), FORKLIFT_MAX_BATCH_SIZE="8")
    assert ready.dropped == ()
    log, model = TokenLog(monkeypatch), load(model_folder("llama"))
    # They leave one after the other, so that rows change their places and every number of rows decodes.
    jobs = [greedy_job(random_prompt(random.Random(i), 9 + 40 * i), 6 + 5 * i) for i in range(8)]
    run(ready.engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)


def test_a_step_with_one_wrong_layer_is_left_out_with_a_warning(model_folder, monkeypatch, has_package):
    has_package.change = lambda out: out + 0.05 * out.roll(1, -1)
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"))
    assert (ready.engine_name, ready.dropped) == ("mixed", ("compiled",))
    assert not isinstance(ready.engine.runner, CompiledRunner)
    assert [line["step"] for line in lines if line["event"] == "step_failed_check"] == ["compiled"]
    log, model, job = TokenLog(monkeypatch), load(model_folder("llama")), greedy_job([9, 8, 7], 12)
    run(ready.engine, job)
    assert log.of(job) == greedy_reference(model, [9, 8, 7], 12, eos_token_id=None)


def test_a_step_that_raises_is_left_out(model_folder, has_package):
    def broken(_out: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("bad code")

    has_package.change = broken
    ready = prepared(model_folder("llama"))
    assert ready.dropped == ("compiled",)


def test_a_step_that_gives_nan_is_left_out(model_folder, has_package):
    has_package.change = lambda out: out * float("nan")
    assert prepared(model_folder("llama")).dropped == ("compiled",)


@pytest.mark.parametrize(("kind", "family"), few_of([("int8", "outliers"), ("int4", "llama")], 1))
def test_a_quantised_model_decodes_on_its_codes_and_a_wrong_step_of_it_is_left_out(
    model_folder, monkeypatch, has_package, kind, family
):
    monkeypatch.setattr(features, "has_better_code", lambda *_: True)
    ready = prepared(model_folder(family), FORKLIFT_QUANTIZATION=kind)
    assert (ready.is_compiled, ready.dropped) == (True, ())
    log, before = TokenLog(monkeypatch), num_calls(has_package)
    job = greedy_job(random_prompt(random.Random(1), 30), 20)
    run(ready.engine, job)
    assert num_calls(has_package) - before == 19
    if kind == "int8":
        assert log.of(job) == greedy_reference(ready.model, job.prompt_ids, 20, eos_token_id=None)
    has_package.change = lambda out: out + 0.5 * out.roll(1, -1)
    assert prepared(model_folder(family), FORKLIFT_QUANTIZATION=kind).dropped == ("compiled",)


def test_weights_are_packed_only_where_no_package_takes_them_as_they_lie(model_folder, has_package):
    def is_packed(ready: Prepared) -> bool:
        return not ready.model.checkpoint.model.base_model.layers[0].o_proj.weight.is_contiguous()

    assert not is_packed(prepared(model_folder("llama")))
    assert is_packed(prepared(model_folder("llama"), FORKLIFT_COMPILE="never"))
    # Up to as many rows as a package has code for; with more of them weights are packed, which no step can take.
    assert not is_packed(prepared(model_folder("llama"), FORKLIFT_MAX_BATCH_SIZE=str(max(ROWS))))
    assert is_packed(prepared(model_folder("llama"), FORKLIFT_MAX_BATCH_SIZE=str(max(ROWS) + 1)))


@pytest.mark.parametrize(
    "environ",
    [
        {"FORKLIFT_COMPILE": "never"},
        {"FORKLIFT_DECODE_RUNNER": "bucketed"},
        {"FORKLIFT_QUANTIZATION": "int8"},
        {"FORKLIFT_PACK_WEIGHTS": "never"},
    ],
    ids=str,
)
def test_settings_that_a_package_does_not_go_with_leave_it_out(model_folder, has_package, environ):
    ready = prepared(model_folder("llama"), **environ)
    assert not isinstance(ready.engine.runner, CompiledRunner)
    assert ready.dropped == ()


def test_why_no_package_is_used_is_one_line(model_folder, tmp_path):
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"), FORKLIFT_CACHE_DIR=str(tmp_path))
    assert ready.dropped == ()
    [line] = [line for line in lines if line["event"] == "compiled_step_not_used"]
    assert "there is no package for a model of its shape" in line["reason"]
