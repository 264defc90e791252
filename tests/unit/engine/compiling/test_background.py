"""A server that compiles while it serves: sequences run on while the step changes below them, and are what they were.

The child is a stand-in, and what it makes runs as traced code; tests/chaos compiles.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import weakref

import pytest
from structlog.testing import capture_logs

from app.core.metrics import Metrics
from app.core.settings import load_settings
from app.core.work.job_events import Finished
from app.engine.checks import features, steps
from app.engine.generation.sequence import Sequence
from app.engine.loading import change_over
from app.engine.runners.compiled import CompiledRunner
from app.engine.runners.mixed import MixedRunner
from app.engine.thread import inference
from app.engine.thread.inference import make_inference
from app.models.compiled import compile_child
from app.models.compiled.compiled_step import find_package, store_of
from app.models.compiled.package_facts import facts_of, key_of
from app.models.compiled.package_store import PackageError
from app.models.compiled.steps.step_graph import model_shape, parts_of
from app.models.weights.int8_plain import PlainInt8Linear
from app.models.weights.quantization import quantize
from tests.compiled_steps import keep_plain, uncompiled_step
from tests.thinned import few_of
from tests.unit.engine.compiling.test_package_maker import is_running
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt
from tests.unit.engine.test_inference import end_of
from tests.waiting import wait_until


class Server:
    """An inference thread whose packages come from a stand-in, once ``gate`` is there; ``change`` spoils its spans."""

    def __init__(self, tmp_path, monkeypatch, model_folder):
        self._folder, self._patch = model_folder("llama"), monkeypatch
        self.cache, self.gate, self.said = tmp_path / "cache", tmp_path / "gate", tmp_path / "said.json"
        self.change = lambda out: out
        self.made: list = []
        self.metrics = Metrics()
        # A piece of the change behind every step, so that sequences need not be long.
        monkeypatch.setattr(inference, "LOOK_PERIOD_S", 0.0)
        monkeypatch.setattr(compile_child, "CHILD", "tests.compiling_child")
        monkeypatch.setenv("CXX", "true")
        for name in ("gate", "said"):
            monkeypatch.setenv({"gate": "STAND_IN_GATE", "said": "STAND_IN_FILE"}[name], str(getattr(self, name)))
        for module in (steps, features, change_over):
            monkeypatch.setattr(module, "find_step", self._find)

    def _find(self, checkpoint, settings):
        shape = model_shape(checkpoint)
        if isinstance(shape, str):
            return shape
        try:
            find_package(shape, store_of(settings))
        except PackageError as error:
            return str(error)
        parts = parts_of(checkpoint)
        if isinstance(parts, str):
            return parts
        self.made.append(uncompiled_step(parts, self.change))
        return self.made[-1]

    def start(self, stand_in="makes", **environ):
        settings = load_settings(
            {
                "FORKLIFT_MODEL": str(self._folder),
                "FORKLIFT_COMPILE": "auto",
                "FORKLIFT_CACHE_DIR": str(self.cache),
                # Steps are counted.
                "FORKLIFT_PROMPT_LOOKUP": "0",
                **environ,
            }
        )
        self._patch.setenv("STAND_IN", stand_in)
        facts = facts_of(self.shape(settings.quantization))
        self._patch.setenv("STAND_IN_FACTS", json.dumps([key_of(facts), facts]))
        states: list = []
        self.inference = make_inference(settings, 0, lambda *state: states.append(state), self.metrics)
        self.inference.start()
        wait_until(lambda: ("ready", 1.0) in states)
        return self

    def shape(self, quantization="none"):
        checkpoint = load(self._folder).checkpoint
        features.fuse_layers(checkpoint)
        if quantization != "none":
            quantize(checkpoint, quantization, 1)
        return model_shape(checkpoint)

    @property
    def handle(self):
        return self.inference.handles[0]

    @property
    def runner(self):
        return self.handle.engine.runner

    def counted(self, outcome: str) -> float:
        samples = [sample for metric in self.metrics.source().collect() for sample in metric.samples]
        return sum(s.value for s in samples if s.labels.get("outcome") == outcome and s.name.endswith("steps_total"))

    def run(self, *jobs):
        for job in jobs:
            self.inference.submit(job)
        return [end_of(job) for job in jobs]


@pytest.fixture
def server(tmp_path, monkeypatch, model_folder):
    one = Server(tmp_path, monkeypatch, model_folder)
    yield one
    one.gate.touch()
    if hasattr(one, "inference"):
        one.inference._stop()


def greedy_jobs(num: int, num_new: int) -> list:
    return [greedy_job(random_prompt(random.Random(i), 5 + 3 * i), num_new) for i in range(num)]


@pytest.mark.slow
def test_sixteen_streams_run_on_while_the_child_compiles_and_while_the_step_changes(server, monkeypatch, model_folder):
    monkeypatch.setattr(features, "pack", keep_plain)
    log = TokenLog(monkeypatch)
    server.start(FORKLIFT_MAX_BATCH_SIZE="16")
    assert server.handle.dropped == []
    assert type(server.runner) is MixedRunner
    assert server.handle.is_compiled is False
    # They end one after the other, so that the last is alone on the new step.
    jobs = [greedy_job(random_prompt(random.Random(i), 5 + 3 * i), 40 + 8 * i) for i in range(16)]
    for job in jobs:
        server.inference.submit(job)
    wait_until(lambda: all(job in log._tokens for job in jobs))
    server.gate.touch()
    wait_until(lambda: server.handle.is_compiled)
    assert isinstance(server.runner, CompiledRunner)
    assert all(isinstance(end_of(job), Finished) for job in jobs)
    model = load(model_folder("llama"))
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)
    assert (server.counted("made"), server.counted("used"), server.counted("failed")) == (1, 1, 0)


@pytest.mark.slow
def test_a_lone_sequence_changes_in_its_middle_and_its_weights_are_unpacked(server, monkeypatch, model_folder):
    log = TokenLog(monkeypatch)
    server.start()
    layer = server.handle.model.checkpoint.model.base_model.layers[0]
    model = server.handle.model.checkpoint.model
    assert not layer.o_proj.weight.is_contiguous()
    accept = Sequence.accept

    def unhurried(sequence, *args):
        """However fast the machine, the package is there before the last token."""
        accept(sequence, *args)
        if not server.handle.is_compiled:
            time.sleep(0.02)

    monkeypatch.setattr(Sequence, "accept", unhurried)
    [job] = greedy_jobs(1, 400)
    server.inference.submit(job)
    wait_until(lambda: len(log._tokens.get(job, [])) > 3)
    server.gate.touch()
    wait_until(lambda: server.handle.is_compiled)
    changed_at = len(log.of(job))
    assert isinstance(end_of(job), Finished)
    assert 3 < changed_at < 400
    assert log.of(job) == greedy_reference(load(model_folder("llama")), job.prompt_ids, 400, eos_token_id=None)
    assert layer.o_proj.weight.is_contiguous() and model.get_output_embeddings().weight.is_contiguous()
    assert sum(sum(step.calls.values()) for step in server.made) > 100


@pytest.mark.slow
@pytest.mark.parametrize("is_wrong", [False, True])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_quantised_model_changes_in_the_middle_of_a_sequence_or_stays_as_it_is(server, kind, is_wrong):
    if is_wrong:
        server.change = lambda out: out + 0.5 * out.roll(1, -1)
    server.start(FORKLIFT_QUANTIZATION=kind)
    layer = server.handle.model.checkpoint.model.base_model.layers[0]
    packed = type(layer.o_proj)
    [job] = greedy_jobs(1, 300)
    server.inference.submit(job)
    server.gate.touch()
    wait_until(lambda: server.handle.dropped if is_wrong else server.handle.is_compiled)
    assert isinstance(end_of(job), Finished)
    assert server.handle.dropped == (["compiled"] if is_wrong else [])
    expected = PlainInt8Linear if kind == "int8" and not is_wrong else packed
    assert type(layer.o_proj) is expected


def test_an_idle_server_changes_too(server):
    server.gate.touch()
    with capture_logs() as lines:
        server.start()
        wait_until(lambda: server.handle.is_compiled)
    assert {line["event"] for line in lines} >= {"package_making", "package_made", "changed_to_compiled_step"}


@pytest.mark.slow
def test_a_step_with_one_wrong_layer_is_never_used(server, monkeypatch, model_folder):
    server.change = lambda out: out + 0.05 * out.roll(1, -1)
    log = TokenLog(monkeypatch)
    with capture_logs() as lines:
        server.start()
        jobs = greedy_jobs(1, 200)
        server.inference.submit(jobs[0])
        server.gate.touch()
        wait_until(lambda: server.handle.dropped)
    assert server.handle.dropped == ["compiled"]
    assert server.handle.is_compiled is False
    assert type(server.runner) is MixedRunner
    assert [line["step"] for line in lines if line["event"] == "step_failed_check"] == ["compiled"]
    assert isinstance(end_of(jobs[0]), Finished)
    assert log.of(jobs[0]) == greedy_reference(load(model_folder("llama")), jobs[0].prompt_ids, 200, eos_token_id=None)
    # As it was: packed again.
    assert not server.handle.model.checkpoint.model.base_model.layers[0].o_proj.weight.is_contiguous()


@pytest.mark.parametrize("stand_in", few_of(["is_killed", "fails", "fills_the_disk", "crashes", "is_silent"], 2))
def test_a_child_that_fails_leaves_the_server_as_it_is_and_one_line(server, stand_in):
    server.gate.touch()
    with capture_logs() as lines:
        server.start(stand_in)
        wait_until(lambda: server.counted("failed"))
    assert [line["event"] for line in lines].count("package_not_made") == 1
    assert [type(end) for end in server.run(*greedy_jobs(1, 5))] == [Finished]
    assert type(server.runner) is MixedRunner
    assert server.handle.dropped == []


def test_a_child_that_is_killed_while_sixteen_streams_run_disturbs_none(server, monkeypatch):
    monkeypatch.setattr(features, "pack", keep_plain)
    server.start("hangs", FORKLIFT_MAX_BATCH_SIZE="16")
    assert server.handle.dropped == []
    jobs = greedy_jobs(16, 60)
    for job in jobs:
        server.inference.submit(job)
    wait_until(server.said.exists)
    told = json.loads(server.said.read_text())
    os.kill(told["pid"], signal.SIGKILL)
    assert all(isinstance(end_of(job), Finished) for job in jobs)
    wait_until(lambda: server.counted("failed"))
    wait_until(lambda: not is_running(told["compiler"]))


@pytest.mark.slow
def test_a_model_that_has_gone_meanwhile_is_not_changed_and_not_kept_in_memory(server):
    server.start()
    prepared = server.handle.close()
    assert prepared is not None
    gone = threading.Event()
    weakref.finalize(prepared, gone.set)
    del prepared
    assert gone.is_set()
    server.gate.touch()
    wait_until(lambda: store_of(server.inference.handles[0].settings).packages())
    time.sleep(0.3)
    assert server.counted("used") == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"FORKLIFT_COMPILE": "never"},
        {"FORKLIFT_DECODE_RUNNER": "bucketed"},
        {"FORKLIFT_PACK_WEIGHTS": "never"},
    ],
    ids=str,
)
def test_nothing_is_made_for_settings_that_could_not_use_it(server, environ):
    server.gate.touch()
    server.start("fails", **environ)
    time.sleep(0.2)
    assert not server.said.exists()
    assert server.handle.is_compiled is False


def test_where_there_is_no_compiler_nothing_is_tried_and_nothing_is_warned_of(server, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with capture_logs() as lines:
        server.start("fails")
        time.sleep(0.2)
    assert not [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in lines].count("compiled_step_not_used") == 1
    assert server.counted("failed") == 0


def test_with_always_the_start_waits_for_the_package(server):
    server.gate.touch()
    with capture_logs() as lines:
        server.start(FORKLIFT_COMPILE="always")
    assert server.handle.is_compiled is True
    assert isinstance(server.runner, CompiledRunner)
    assert "package_made" in [line["event"] for line in lines]
    assert server.counted("used") == 1


def test_with_always_a_package_that_cannot_be_made_is_a_warning_and_the_server_serves(server):
    with capture_logs() as lines:
        server.start("fails", FORKLIFT_COMPILE="always")
    assert [line["reason"] for line in lines if line["event"] == "package_not_made"] == [
        "the step could not be compiled"
    ]
    assert server.handle.is_compiled is False
    assert [type(end) for end in server.run(*greedy_jobs(1, 5))] == [Finished]


def test_the_next_start_uses_what_the_last_one_made(server):
    server.gate.touch()
    server.start()
    wait_until(lambda: server.handle.is_compiled)
    server.inference._stop()
    server.start("is_killed")
    assert server.handle.is_compiled is True
    assert server.counted("made") == 1
