"""The engine that serves is the engine that was checked: what is wrong is left out, and answers stay ``generate``'s."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.engine.checks import ladder, plays, steps
from app.engine.loading.build import Prepared, prepare
from app.engine.runners.bucketed import BucketedRunner
from app.models.weights.fused.fused_layers import FusedLayer
from tests.planted import PLANTED
from tests.thinned import few_of
from tests.tiny_models import save_tiny_model
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, run

PROMPTS = [[(i * step) % 300 + 20 for i in range(length)] for step, length in ((31, 60), (17, 9), (23, 33))]
# What is left out for each fault, and the way that serves then.
EXPECTED = {
    "changed_mask": (("mixed", "batched"), "serial"),
    "wrong_head": (("fused",), "mixed"),
    "lost_cache": (("fused",), "mixed"),
    "transposed_weight": (("packed",), "mixed"),
    "bad_scale": (("quantized",), "mixed"),
    "write_too_far": (("mixed", "batched"), "serial"),
    "dropped_chunk": (("mixed",), "batched"),
    "positions_off": (("mixed", "batched"), "serial"),
    "swapped_rows": (("mixed", "batched"), "serial"),
    "wrong_sampler_row": (("mixed", "batched"), "serial"),
    "stale_graph": (("graphs",), "mixed"),
    "stuck_graph": (("graphs",), "mixed"),
    "raising_capture": (("graphs",), "mixed"),
    "wrong_query_head": (("paged",), "mixed"),
}
# What has to be asked for on a CPU, for a fault to be met.
NEEDED = {
    "bad_scale": {"FORKLIFT_QUANTIZATION": "int8"},
    "stale_graph": {"FORKLIFT_DECODE_RUNNER": "graphs"},
    "stuck_graph": {"FORKLIFT_DECODE_RUNNER": "graphs"},
    "raising_capture": {"FORKLIFT_DECODE_RUNNER": "graphs"},
    "wrong_query_head": {"FORKLIFT_DECODE_RUNNER": "paged"},
}


def prepared(folder, **environ) -> Prepared:
    settings = load_settings({"FORKLIFT_MODEL": str(folder), "FORKLIFT_MAX_BATCH_SIZE": "4", **environ})
    return prepare(settings, lambda _: None)


@pytest.fixture(scope="module")
def expected(model_folder):
    """What ``generate`` answers on the model as transformers builds it."""
    model = load(model_folder("llama"))
    return [greedy_reference(model, prompt, 12, eos_token_id=None) for prompt in PROMPTS]


def answers_of(ready: Prepared, monkeypatch) -> list[list[int]]:
    log = TokenLog(monkeypatch)
    jobs = [greedy_job(prompt, 12) for prompt in PROMPTS]
    run(ready.engine, *jobs)
    return [log.of(job) for job in jobs]


def test_without_a_fault_everything_is_used_and_nothing_is_dropped(model_folder, monkeypatch, expected):
    ready = prepared(model_folder("llama"))
    assert (ready.engine_name, ready.dropped) == ("mixed", ())
    assert isinstance(ready.model.checkpoint.model.model.layers[0], FusedLayer)
    assert answers_of(ready, monkeypatch) == expected


@pytest.fixture
def no_time(monkeypatch):
    """Every check has taken more than it may before it plays anything."""
    monkeypatch.setattr(plays, "SHARE_OF_LOAD", 0.0)
    monkeypatch.setattr(plays, "LEAST_BUDGET_S", 0.0)


@pytest.fixture
def much_time(monkeypatch):
    monkeypatch.setattr(plays, "LEAST_BUDGET_S", 600.0)


@pytest.mark.parametrize("budget", [pytest.param("much_time", marks=pytest.mark.slow), "no_time"])
@pytest.mark.parametrize("fault", few_of(EXPECTED, 2))
def test_a_planted_fault_ends_on_a_lower_step_that_answers_as_generate_does(
    model_folder, monkeypatch, expected, fault, budget, request
):
    request.getfixturevalue(budget)
    PLANTED[fault](monkeypatch.setattr)
    dropped, engine = EXPECTED[fault]
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"), **NEEDED.get(fault, {}))
    assert (ready.dropped, ready.engine_name) == (dropped, engine)
    assert answers_of(ready, monkeypatch) == expected
    failed = [line for line in lines if line["event"] == "step_failed_check"]
    assert tuple(line["step"] for line in failed) == dropped
    assert all(line["log_level"] == "warning" and line["reason"] for line in failed)
    [told] = [line for line in lines if line["event"] == "serving_on_lower_step"]
    assert (told["engine"], told["dropped"], told["log_level"]) == (engine, list(dropped), "warning")


def test_a_check_without_time_says_what_it_left_out(model_folder, no_time):
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"))
    [told] = [line for line in lines if line["event"] == "check_shortened"]
    assert told["left_out"] == list(plays.BRIEF.left_out) and told["log_level"] == "warning"
    assert (told["check_s"], ready.dropped) == (ready.check_s, ())


def test_a_check_with_time_says_nothing(model_folder, much_time):
    with capture_logs() as lines:
        prepared(model_folder("llama"))
    assert not [line for line in lines if line["event"] == "check_shortened"]


def test_a_slow_load_lets_its_check_take_longer(monkeypatch):
    monkeypatch.setattr(plays, "time", SimpleNamespace(monotonic=iter([0.0, 100.0, 103.0, 103.0]).__next__))
    clock = plays.CheckClock()
    with clock.timed():
        pass
    assert (clock.check_s, clock.last_s) == (3.0, 3.0)
    assert clock.remaining_s == pytest.approx(7.0), "a tenth of 100 s"
    assert plays.play_within(7.0, 7.0 / plays.FULL.num_passes) is plays.FULL
    assert plays.play_within(7.0, 7.1 / plays.FULL.num_passes) is plays.BRIEF


def test_only_the_feature_at_fault_is_left_out(model_folder, monkeypatch):
    PLANTED["wrong_head"](monkeypatch.setattr)
    ready = prepared(model_folder("llama"), FORKLIFT_QUANTIZATION="int8", FORKLIFT_MAX_BATCH_SIZE="1")
    assert ready.dropped == ("fused",)
    assert ready.settings.quantization == "int8"
    assert not any(isinstance(one, torch.nn.Linear) for one in ready.model.checkpoint.model.modules())


@pytest.mark.slow
def test_two_faults_are_both_left_out(model_folder, monkeypatch, expected):
    PLANTED["wrong_head"](monkeypatch.setattr)
    PLANTED["dropped_chunk"](monkeypatch.setattr)
    ready = prepared(model_folder("llama"))
    assert (ready.dropped, ready.engine_name) == (("fused", "mixed"), "batched")
    assert answers_of(ready, monkeypatch) == expected


def test_a_mixed_pass_that_raises_is_not_taken_for_one_that_works(model_folder, monkeypatch):
    from app.engine.runners.mixed import MixedRunner

    def raising(*_args):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(MixedRunner, "_mixed_logits", raising)
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"))
    assert (ready.dropped, ready.engine_name) == (("mixed",), "batched")
    assert any("no such kernel" in str(line.get("reason")) for line in lines)


@pytest.mark.parametrize("runner", ["eager", "bucketed", "graphs"])
def test_the_runner_of_the_settings_is_the_one_that_is_checked(model_folder, monkeypatch, expected, runner):
    ready = prepared(model_folder("llama"), FORKLIFT_DECODE_RUNNER=runner, FORKLIFT_PROMPT_LOOKUP="4")
    assert (ready.dropped, ready.engine_name) == ((), "mixed")
    assert isinstance(ready.engine.runner, BucketedRunner) == (runner != "eager")
    assert answers_of(ready, monkeypatch) == expected


def test_a_layer_that_gives_nan_stops_the_load_with_one_line(model_folder, monkeypatch):
    PLANTED["nan_layer"](monkeypatch.setattr)
    with pytest.raises(ModelLoadError, match="gives NaN or infinity in float32") as caught:
        prepared(model_folder("llama"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("family", ["llama", "bert", "sentence"])
def test_a_weight_that_is_no_number_stops_the_load_and_is_named(tmp_path, family, value):
    folder = save_tiny_model(family, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    name = next(one for one in weights if "layer" in one and weights[one].ndim == 2)
    weights[name][3, 4] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=f"NaN or infinity in its weight .*{name.split('.', 1)[1]}"):
        prepared(folder)


def test_a_model_that_generate_cannot_run_is_served_where_slots_can(model_folder, monkeypatch):
    forget(monkeypatch)
    assert prepared(model_folder("qwen2")).engine_name == "mixed"


def test_a_model_that_no_step_runs_as_its_forward_pass_says_stops_the_load(model_folder, monkeypatch):
    forget(monkeypatch)
    monkeypatch.setattr(steps, "can_attend", lambda _checkpoint: False)
    with pytest.raises(ModelLoadError, match="does not answer as its own forward pass says") as caught:
        prepared(model_folder("mistral"))
    assert "\n" not in str(caught.value)


def forget(monkeypatch) -> None:
    """transformers' own cache keeps nothing."""
    for kind in (DynamicLayer, DynamicSlidingWindowLayer):
        monkeypatch.setattr(kind, "update", lambda _layer, keys, values, *_args, **_options: (keys, values))


@pytest.mark.slow
def test_weights_that_do_not_fit_unquantised_stop_the_load(model_folder, monkeypatch):
    PLANTED["bad_scale"](monkeypatch.setattr)
    monkeypatch.setattr(ladder, "free_bytes", lambda _device: 1000)
    with pytest.raises(ModelLoadError, match="FORKLIFT_QUANTIZATION=int8 changes what this model says too much"):
        prepared(model_folder("llama"), FORKLIFT_QUANTIZATION="int8")


@pytest.mark.parametrize("family", few_of(["bert", "sentence"], 1))
def test_an_encoder_that_quantising_spoils_is_served_without_it(model_folder, monkeypatch, family):
    from app.engine.checks import features

    quantize = features.quantize

    def spoil(checkpoint, *args) -> None:
        quantize(checkpoint, *args)
        layer = next(m for m in checkpoint.model.modules() if isinstance(m, torch.nn.LayerNorm))
        layer.register_forward_hook(lambda _module, _inputs, output: output.flip(-1))

    monkeypatch.setattr(features, "quantize", spoil)
    ready = prepared(model_folder(family), FORKLIFT_QUANTIZATION="int8")
    assert (ready.engine_name, ready.dropped, ready.settings.quantization) == ("encoder", ("quantized",), "none")


def test_an_encoder_that_a_batch_spoils_gets_a_pass_for_each_text(model_folder, monkeypatch):
    from app.engine.encoding.micro_batcher import MicroBatcher

    forward = MicroBatcher._forward

    def without_mask(batcher, jobs):
        longest = max(len(job.prompt_ids) for job in jobs)
        for job in jobs:
            job.prompt_ids = job.prompt_ids + [7] * (longest - len(job.prompt_ids))
        return forward(batcher, jobs)

    monkeypatch.setattr(MicroBatcher, "_forward", without_mask)
    assert prepared(model_folder("bert")).dropped == ("together",)


def test_in_bfloat16_rounding_drops_nothing(model_folder):
    ready = prepared(model_folder("llama"), FORKLIFT_DTYPE="bfloat16")
    assert (ready.engine_name, ready.dropped) == ("mixed", ())


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantised_weights_pass_their_own_bound(model_folder, kind):
    ready = prepared(model_folder("llama"), FORKLIFT_QUANTIZATION=kind)
    assert (ready.engine_name, ready.dropped, ready.settings.quantization) == ("mixed", (), kind)


def test_a_feature_whose_plain_pass_raises_is_left_out(model_folder, monkeypatch):
    departure = ladder.Trial.departure

    def without_weights(trial):
        if any(feature.name == "quantized" for feature in trial.applied):
            raise AttributeError("the layer has no weight")
        return departure(trial)

    monkeypatch.setattr(ladder.Trial, "departure", without_weights)
    assert "quantized" in prepared(model_folder("bert"), FORKLIFT_QUANTIZATION="int8").dropped


@pytest.mark.parametrize(("family", "kind"), few_of([("t5", "int8"), ("t5", "int4"), ("bart", "int8")], 1))
def test_texts_are_made_of_texts_by_quantised_weights(model_folder, family, kind):
    ready = prepared(model_folder(family), FORKLIFT_QUANTIZATION=kind)
    assert (ready.engine_name, ready.settings.quantization) == ("batched", kind if not ready.dropped else "none")
    assert set(ready.dropped) <= {"quantized"}
