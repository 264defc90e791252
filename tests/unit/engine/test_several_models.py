"""Several models on one inference thread: turns, loads on demand, memory, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from app.core.errors import (
    InsufficientMemoryError,
    InternalError,
    LoadFailedError,
    LoadingError,
    ModelLoadError,
    RequestError,
    RequestTimeoutError,
    ShuttingDownError,
)
from app.core.metrics import Metrics
from app.core.settings import load_settings
from app.core.system import load_marks
from app.core.system.load_marks import LoadMarks
from app.core.work.job_events import Finished
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.loading import build as build_module
from app.engine.loading import memory_budget as room_module
from app.engine.loading import pool as pool_module
from app.engine.loading.handle import ModelHandle
from app.engine.thread import inference as inference_module
from app.engine.thread.inference import Inference, make_inference
from tests.several import write_models_file
from tests.thinned import few_of
from tests.unit.engine.driver import greedy_reference, load
from tests.unit.engine.test_inference import end_of
from tests.waiting import LIMIT_S, wait_until

ON_DEMAND = {"load": "on_demand"}
PROMPT = [30, 31, 32]


class Several:
    """A started inference thread with the models of ``tables``."""

    def __init__(self, file: Path, tables, **environ: str):
        self.states: list[tuple[str, float]] = []
        write_models_file(file, tables)
        settings = load_settings({"FORKLIFT_MODELS": str(file), **environ})
        self.metrics = Metrics()
        self.inference: Inference = make_inference(settings, 0, lambda *state: self.states.append(state), self.metrics)
        self.inference.start()

    def __getitem__(self, name: str) -> ModelHandle:
        return next(one for one in self.inference.handles if one.name == name)

    def wait_until_ready(self) -> Several:
        wait_until(lambda: ("ready", 1.0) in self.states)
        return self

    def counted(self, metric: str) -> dict[tuple[str, str], float]:
        """A counter's values by its two labels, the model first."""
        [family] = [one for one in self.metrics.source().collect() if one.name == f"forklift_{metric}"]
        samples = (one for one in family.samples if one.name.endswith("_total"))
        return {tuple(one.labels.values()): one.value for one in samples}

    def run(self, name: str, num_new: int = 4, **options: object) -> Job:
        """Wait for the model, run one job to its end, give the use back."""
        use = self[name].lease()
        assert use.wait(LIMIT_S) is not None
        job = job_of(num_new, **options)
        use.submit(job)
        assert end_of(job) == Finished("length")
        use.release()
        return job


@pytest.fixture
def start(tmp_path):
    started = []

    def make(tables, **environ: str) -> Several:
        started.append(Several(tmp_path / "models.toml", tables, **environ))
        return started[-1]

    yield make
    for one in started:
        one.inference._stop()


@pytest.fixture
def folders(model_folder):
    """Tables of tiny models: ``folders(a="qwen2", b="gpt2")``, each with ``more``."""

    def folders(more=None, **families: str):
        return {name: {"path": model_folder(family), **(more or {})} for name, family in families.items()}

    return folders


def job_of(num_new: int, **options: object) -> Job:
    return Job("t", PROMPT, SamplingParams(num_new, ignore_eos=True), **options)


def running_job(several: Several, name: str, num_new: int = 900):
    """A use with a job that has begun."""
    use = several[name].lease()
    assert use.wait(LIMIT_S) is not None
    job = job_of(num_new)
    use.submit(job)
    wait_until(lambda: job.usage.completion_tokens > 0)
    return use, job


def end(use, job) -> None:
    job.cancel(InternalError())
    end_of(job)
    use.release()


def test_each_model_generates_what_it_generates_alone(start, folders, model_folder, monkeypatch):
    several = start(folders(a="qwen2", b="gpt2")).wait_until_ready()
    accepted: dict[Job, list[int]] = {}
    from app.engine.generation.sequence import Sequence

    accept = Sequence.accept

    def noting(self, token, *rest):
        accepted.setdefault(self.job, []).append(token)
        return accept(self, token, *rest)

    monkeypatch.setattr(Sequence, "accept", noting)
    for name, family in (("a", "qwen2"), ("b", "gpt2")):
        job = several.run(name, 20)
        assert accepted[job] == greedy_reference(load(model_folder(family)), PROMPT, 20, eos_token_id=None)


def test_models_take_turns_step_by_step(start, folders):
    several = start(folders(a="qwen2", b="gpt2")).wait_until_ready()
    pairs = [running_job(several, name) for name in ("a", "b")]
    before = [job.usage.completion_tokens for _, job in pairs]
    wait_until(lambda: all(job.usage.completion_tokens >= n + 20 for (_, job), n in zip(pairs, before, strict=True)))
    gained = [job.usage.completion_tokens - n for (_, job), n in zip(pairs, before, strict=True)]
    assert abs(gained[0] - gained[1]) < 20, "one token each in turn"
    for pair in pairs:
        end(*pair)


@pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*")
def test_a_model_that_runs_through_generate_lets_the_others_step_between_its_tokens(start, folders):
    several = start(folders(slow="rwkv", fast="qwen2")).wait_until_ready()
    use, slow = running_job(several, "slow", 500)
    several.run("fast", 20)
    assert not slow.has_ended
    end(use, slow)


@pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*")
def test_two_models_that_run_through_generate_take_turns_by_the_token_and_keep_deadlines(start, folders):
    several = start(folders(a="rwkv", b="rwkv")).wait_until_ready()
    use, first = running_job(several, "a", 900)
    other = several["b"].lease()
    late, waiting = job_of(900, deadline_s=time.monotonic() + 0.05), job_of(4)
    other.submit(late)
    other.submit(waiting)
    assert isinstance(end_of(late).error, RequestTimeoutError)
    assert end_of(waiting) == Finished("length")
    assert not first.has_ended
    end(use, first)
    other.release()


def test_a_model_on_demand_is_loaded_once_for_all_who_ask(start, folders, monkeypatch):
    loads = []
    prepare = build_module.prepare
    monkeypatch.setattr(build_module, "prepare", lambda s, *a, **k: loads.append(s.model_name) or prepare(s, *a, **k))
    several = start(folders(a="qwen2") | folders(ON_DEMAND, b="gpt2")).wait_until_ready()
    assert (several["b"].state, several["b"].task, several["b"].model) == ("unloaded", "generate", None)
    threads = [threading.Thread(target=several.run, args=("b",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert loads == ["a", "b"]
    assert several["b"].state == "loaded"


def test_a_model_on_demand_is_loaded_in_the_middle_of_another_ones_requests(start, folders):
    several = start(folders(a="qwen2") | folders(ON_DEMAND, b="gpt2")).wait_until_ready()
    use, job = running_job(several, "a")
    several.run("b")
    assert not job.has_ended
    assert several.inference.defect() is None
    end(use, job)


@pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*")
def test_a_load_in_the_middle_of_generate_makes_a_model_that_is_like_any_other(start, folders):
    several = start(folders(slow="rwkv") | folders(ON_DEMAND, b="gpt2", c="mistral")).wait_until_ready()
    use, job = running_job(several, "slow", 900)
    several.run("b")
    weight = next(several["b"].model.checkpoint.model.parameters())
    assert not weight.is_inference() and torch.get_default_dtype() == torch.float32
    third = several["c"].lease()
    assert third.wait(LIMIT_S) is not None and not job.has_ended
    third.release()
    end(use, job)


def test_with_nothing_resident_the_server_is_ready_at_once(start, folders):
    several = start(folders(ON_DEMAND, a="qwen2")).wait_until_ready()
    assert several["a"].state == "unloaded"
    several.run("a")


def test_an_idle_model_is_unloaded_and_loaded_again(start, folders):
    several = start(folders(a="qwen2") | folders({**ON_DEMAND, "idle_unload_s": 0.3}, b="gpt2")).wait_until_ready()
    several.run("b")
    held = several["b"].lease()
    model = held.wait(LIMIT_S)
    time.sleep(0.5)
    assert several["b"].state == "loaded", "somebody uses it"
    held.release()
    wait_until(lambda: several["b"].state == "unloaded")
    assert list(model.checkpoint.model.parameters()) == []
    assert model.encode("still a tokenizer")
    several.run("b")


def test_loads_and_unloads_are_counted_by_model_and_ending(breakable):
    several, weights = breakable
    hidden = weights.rename(weights.with_suffix(".away"))
    with pytest.raises(LoadFailedError):
        several["b"].lease().wait(LIMIT_S)
    hidden.rename(weights)
    several.run("b")
    assert several.counted("model_loads") == {("a", "loaded"): 1, ("b", "failed"): 1, ("b", "loaded"): 1}
    assert several.counted("model_unloads") == {}


@pytest.mark.slow
def test_a_model_whose_files_are_gone_costs_the_streams_of_others_nothing(breakable):
    several, weights = breakable
    use, job = running_job(several, "a")
    hidden = weights.rename(weights.with_suffix(".away"))
    with pytest.raises(LoadFailedError):
        several["b"].lease().wait(LIMIT_S)
    assert several.inference.defect() is None and not job.has_ended
    hidden.rename(weights)
    several.run("b")
    end(use, job)


class Memory:
    """Pretends that the device has room for ``free`` bytes beyond what on-demand models take."""

    def __init__(self, several: Several, monkeypatch, room: int):
        self.largest = 0
        monkeypatch.setattr(room_module, "free_bytes", lambda _: room - self._taken(several))
        monkeypatch.setattr(room_module, "promised_bytes", lambda _: 0)
        self.room = room

    def _taken(self, several: Several) -> int:
        loaded = [one for one in several.inference.handles if one.is_on_demand and one.prepared]
        taken = sum(one.footprint.num_bytes for one in loaded)
        self.largest = max(self.largest, taken)
        return taken


@pytest.fixture
def tight(start, folders, monkeypatch):
    """A resident model and two on demand, of which memory holds one."""
    several = start(folders(r="qwen2") | folders(ON_DEMAND, a="gpt2", b="llama")).wait_until_ready()
    room = max(several[name].footprint.num_bytes for name in "ab") * 1.2
    several.memory = Memory(several, monkeypatch, int(room))
    return several


@pytest.mark.slow
def test_an_idle_model_makes_room_for_the_next(tight):
    for name, other in ("ab", "ba", "ab"):
        tight.run(name)
        assert (tight[name].state, tight[other].state) == ("loaded", "unloaded")
    assert 0 < tight.memory.largest <= tight.memory.room
    assert tight.counted("model_unloads") == {("a", "room"): 1, ("b", "room"): 1}


def test_a_busy_model_ends_its_requests_before_it_makes_room(tight):
    use, job = running_job(tight, "a")
    waiting = tight["b"].lease()
    assert waiting.wait(0.3) is None
    late = tight["a"].lease()
    assert late.wait(0.2) is None, "who comes later waits behind the model that waits for room"
    assert tight["a"].state == "loaded" and not job.has_ended
    end(use, job)
    assert waiting.wait(LIMIT_S) is not None
    assert tight["a"].state == "unloaded"
    waiting.release()
    assert late.wait(LIMIT_S) is not None
    late.release()
    assert tight.memory.largest <= tight.memory.room


def test_when_the_one_who_waits_for_room_gives_up_the_busy_model_goes_on(tight):
    use, job = running_job(tight, "a")
    waiting = tight["b"].lease()
    assert waiting.wait(0.2) is None
    late = tight["a"].lease()
    assert late.wait(0.2) is None
    waiting.release()
    assert late.wait(LIMIT_S) is not None
    late.release()
    end(use, job)
    assert tight["b"].state == "unloaded"


def test_a_model_that_can_never_fit_is_refused_and_closes_nothing(tight, monkeypatch):
    tight.run("a")
    monkeypatch.setattr(room_module, "free_bytes", lambda _: -(10**12))
    with pytest.raises(InsufficientMemoryError, match="does not fit into memory"):
        tight["b"].lease().wait(LIMIT_S)
    assert (tight["a"].state, tight["b"].state) == ("loaded", "failed")
    assert tight.counted("model_loads")["b", "refused"] == 1


def test_the_memory_that_loaded_models_will_still_take_is_not_free(start, folders, model_folder):
    tables = folders(a="qwen2") | folders(ON_DEMAND, b="gpt2")
    several = start(tables, FORKLIFT_PACK_WEIGHTS="never").wait_until_ready()
    prepared, weights = several["a"].prepared, several["a"].footprint
    assert weights.weight_bytes == sum(p.numel() * 4 for p in load(model_folder("qwen2")).checkpoint.model.parameters())
    assert weights.is_mapped, "the page cache that holds them counts as available"
    expected = prepared.kv_memory.max_bytes - prepared.engine.runner.cache.num_bytes + weights.weight_bytes
    assert room_module.promised_bytes(several.inference.handles) == expected


@pytest.mark.parametrize("family", few_of(["qwen2", "codegen", "gpt2", "gpt_bigcode", "xglm", "llama", "glm"], 2))
def test_the_kv_cache_is_predicted_from_the_config_alone(start, folders, family):
    several = start(folders(a="qwen2") | folders(ON_DEMAND, b=family), FORKLIFT_MAX_BATCH_SIZE="2").wait_until_ready()
    predicted = several["b"].footprint.kv_bytes
    several.run("b")
    assert several["b"].kv_memory.max_bytes == predicted


@pytest.fixture
def breakable(start, folders, tmp_path, model_folder):
    """A resident model, and one on demand whose folder the test may change."""
    folder = shutil.copytree(model_folder("gpt2"), tmp_path / "breakable")
    tables = folders(a="qwen2") | {"b": {"path": folder, **ON_DEMAND}}
    return start(tables).wait_until_ready(), folder / "model.safetensors"


@pytest.mark.slow
def test_a_load_that_fails_fails_who_waits_and_the_next_request_tries_again(breakable):
    several, weights = breakable
    hidden = weights.rename(weights.with_suffix(".away"))
    for _ in range(2):
        with pytest.raises(LoadFailedError, match="the model b could not be loaded") as raised:
            several["b"].lease().wait(LIMIT_S)
        assert str(weights.parent) not in str(raised.value)
    assert several["b"].state == "failed"
    assert several.inference.defect() is None
    several.run("a")
    hidden.rename(weights)
    several.run("b")
    assert several["b"].state == "loaded"


def test_a_model_whose_load_has_ended_a_process_is_not_tried_again_at_once(start, folders, monkeypatch):
    marks = LoadMarks(2, 2)
    monkeypatch.setattr(load_marks, "_marks", marks)
    row = marks.bear()
    marks.begin(1)
    marks.note_end(row, was_told_to=False)
    marks.bear()
    several = start(folders(a="gpt2") | folders(ON_DEMAND, b="gpt2")).wait_until_ready()
    with pytest.raises(
        LoadFailedError, match="the model b is not loaded: its last load has ended the process"
    ) as raised:
        several["b"].lease().wait(LIMIT_S)
    assert 1 <= raised.value.retry_after_s <= load_marks.FIRST_PAUSE_S
    several.run("a")
    assert several["b"].state == "failed"
    marks._models[1].until_s = 0.0
    several.run("b")
    assert marks.num_deaths(1) == 0


def test_a_load_that_raises_something_unforeseen_costs_only_who_waits(start, folders, monkeypatch):
    several = start(folders(a="qwen2") | folders(ON_DEMAND, b="gpt2")).wait_until_ready()

    def raising(*_args, **_options):
        raise RuntimeError("nobody thought of this")

    with monkeypatch.context() as patch:
        patch.setattr(several.inference._pool, "_prepare", raising)
        with pytest.raises(LoadFailedError):
            several["b"].lease().wait(LIMIT_S)
    several.run("b")


@pytest.fixture
def stuck(start, folders, monkeypatch):
    """A load of ``b`` that goes on until the gate opens."""
    several = start(
        folders(a="qwen2") | folders(ON_DEMAND, b="gpt2"), FORKLIFT_LOAD_TIMEOUT_S="30", FORKLIFT_STALL_TIMEOUT_S="0.5"
    ).wait_until_ready()
    pool = several.inference._pool
    gate, prepare = threading.Event(), pool._prepare
    monkeypatch.setattr(pool, "_prepare", lambda *a, **k: (gate.wait(LIMIT_S), prepare(*a, **k))[1])
    yield several, gate
    gate.set()


def test_a_load_is_no_stall_of_the_models_that_wait_for_it(stuck):
    several, gate = stuck
    use, job = running_job(several, "a")
    other = several["b"].lease()
    wait_until(lambda: several["b"].state == "loading")
    time.sleep(0.8)
    assert several.inference.defect() is None
    gate.set()
    assert other.wait(LIMIT_S) is not None
    other.release()
    end(use, job)


def test_a_load_on_demand_that_takes_too_long_is_a_defect(stuck, monkeypatch):
    several, _ = stuck
    monkeypatch.setattr(several.inference._stall_clock, "_load_timeout_s", 0.1)
    several["b"].lease()
    wait_until(lambda: several.inference.defect() is not None)
    assert "loading took longer than 0.1 s" in several.inference.defect()


def test_draining_takes_nobody_new_and_lets_a_load_that_is_under_way_end(stuck):
    several, gate = stuck
    waiting = several["b"].lease()
    wait_until(lambda: several["b"].state == "loading")
    second = several["b"].lease()
    several.inference.drain()
    with pytest.raises(ShuttingDownError):
        several["a"].lease()
    gate.set()
    assert waiting.wait(LIMIT_S) is not None, "the load was under way"
    assert second.wait(LIMIT_S) is not None
    waiting.release()
    second.release()


@pytest.mark.slow
def test_draining_refuses_who_waits_for_room(tight):
    use, job = running_job(tight, "a", 200)
    waiting = tight["b"].lease()
    assert waiting.wait(0.1) is None
    tight.inference.drain()
    with pytest.raises(ShuttingDownError):
        waiting.wait(LIMIT_S)
    assert end_of(job) == Finished("length")
    use.release()


@pytest.mark.slow
def test_draining_waits_without_turning_for_a_model_that_is_not_unloaded_any_more(start, folders):
    several = start(folders(a="qwen2") | folders({**ON_DEMAND, "idle_unload_s": 0.4}, b="gpt2")).wait_until_ready()
    several.run("b")
    several.inference.drain()
    time.sleep(0.6)
    assert several["b"].state == "loaded", "its time is over"
    looks, rest = [], several.inference._rotation.rest
    several.inference._rotation.rest = lambda now_s: (looks.append(now_s), rest(now_s))[1]
    time.sleep(0.3)
    assert len(looks) < 3


def test_running_streams_are_not_kept_from_their_steps_by_looking_for_loads(start, folders, monkeypatch):
    monkeypatch.setattr(inference_module, "LOOK_PERIOD_S", 3600.0)
    several = start(folders(a="qwen2") | folders(ON_DEMAND, b="gpt2")).wait_until_ready()
    use, job = running_job(several, "a")
    looks, tend = [], several.inference._pool.tend
    several.inference._pool.tend = lambda now_s: (looks.append(now_s), tend(now_s))[1]
    before = job.usage.completion_tokens
    wait_until(lambda: job.usage.completion_tokens > before + 20)
    assert looks == []
    several.run("b")
    assert looks, "who waits for a load wakes the thread"
    end(use, job)


def test_cancelling_all_ends_the_jobs_of_every_model(start, folders):
    several = start(folders(a="qwen2", b="gpt2")).wait_until_ready()
    pairs = [running_job(several, name) for name in ("a", "b")]
    several.inference.cancel_all(ShuttingDownError("now"))
    assert all(isinstance(end_of(job).error, ShuttingDownError) for _, job in pairs)


def test_a_use_that_nobody_waits_for_any_more_loads_nothing(tight):
    use, job = running_job(tight, "a")
    tight["b"].lease().release()
    end(use, job)
    tight.run("r")
    assert tight["b"].state == "unloaded"


def test_a_resident_that_cannot_be_loaded_is_a_load_failure(start, folders):
    several = start(folders(a="qwen2") | {"b": {"path": "/nowhere/at/all"}})
    wait_until(lambda: several.inference.load_failure() is not None)
    assert "/nowhere/at/all does not exist" in str(several.inference.load_failure())
    with pytest.raises(LoadingError):
        several["a"].lease()


def test_resident_weights_that_do_not_fit_stop_the_start_before_they_are_read(tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(pool_module, "free_bytes", lambda _: 1000)
    monkeypatch.setattr(build_module, "prepare", lambda *_args, **_options: pytest.fail("the weights were read"))
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("gpt2"))})
    inference = make_inference(settings, 0, lambda *_state: None, Metrics())
    inference.start()
    wait_until(lambda: inference.load_failure() is not None)
    assert "need 0.00 GiB, 0.00 GiB are free" in str(inference.load_failure())
    inference.cancel_all(ShuttingDownError("over"))


def test_a_model_on_demand_must_be_a_folder_that_is_there(start, folders):
    several = start(folders(a="qwen2") | {"b": {"path": "some/hub-id", **ON_DEMAND}})
    wait_until(lambda: several.inference.load_failure() is not None)
    assert isinstance(several.inference.load_failure(), ModelLoadError)
    assert '[b] load = "on_demand" needs a model folder' in str(several.inference.load_failure())


def test_the_task_of_the_file_goes_before_the_configs(start, folders):
    several = start(folders({"task": "embeddings"}, a="bert") | folders(b="qwen2")).wait_until_ready()
    assert (several["a"].task, several["a"].model.task, several["b"].task) == ("embeddings", "embeddings", "generate")


def refused(several: Several, name: str) -> str:
    """The code that a request for the model is refused with."""
    use = several[name].lease()
    try:
        with pytest.raises(RequestError) as raised:
            use.wait(LIMIT_S)
    finally:
        use.release()
    return raised.value.code


FAULTS = {
    "a pipe": lambda folder: replace(folder / "config.json", os.mkfifo),
    "a link that leads nowhere": lambda folder: replace(
        folder / "model.safetensors", lambda path: path.symlink_to("/nowhere")
    ),
    "nested too deeply": lambda folder: (folder / "config.json").write_text("[" * 100_000),
    "a wrong type": lambda folder: (folder / "config.json").write_text('{"model_type": "gpt2", "eos_token_id": "x"}'),
    "no folder": lambda folder: shutil.rmtree(folder),
}


def replace(path: Path, put) -> None:
    path.unlink()
    put(path)


@pytest.mark.parametrize("fault", few_of([fault for fault in FAULTS if fault != "no folder"], 1))
def test_a_model_on_demand_that_cannot_be_read_at_the_start_fails_its_own_requests_only(
    start, folders, tmp_path, model_folder, fault
):
    bad = shutil.copytree(model_folder("gpt2"), tmp_path / "bad")
    FAULTS[fault](bad)
    several = start(folders(a="qwen2") | {"b": {"path": bad, **ON_DEMAND}}).wait_until_ready()
    assert refused(several, "b") == "load_failed"
    several.run("a")
    shutil.rmtree(bad)
    shutil.copytree(model_folder("gpt2"), bad)
    several.run("b")


@pytest.mark.slow
def test_a_model_on_demand_that_breaks_later_fails_its_own_requests_only(start, folders, tmp_path, model_folder):
    bad = shutil.copytree(model_folder("gpt2"), tmp_path / "bad")
    table = {"b": {"path": bad, **ON_DEMAND, "idle_unload_s": 0}}
    several = start(folders(a="qwen2") | table).wait_until_ready()
    for fault in FAULTS.values():
        fault(bad)
        assert refused(several, "b") == "load_failed"
        several.run("a")
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(model_folder("gpt2"), bad)
    several.run("b")


@pytest.mark.slow
def test_a_folder_that_became_another_kind_of_model_is_not_loaded(start, folders, tmp_path, model_folder):
    changing = shutil.copytree(model_folder("gpt2"), tmp_path / "changing")
    table = {"b": {"path": changing, **ON_DEMAND, "idle_unload_s": 0}}
    several = start(folders(a="qwen2") | table).wait_until_ready()
    several.run("b")
    wait_until(lambda: several["b"].state == "unloaded")
    shutil.rmtree(changing)
    shutil.copytree(model_folder("bert"), changing)
    assert refused(several, "b") == "load_failed"
    assert several["b"].task == "generate"
    several.run("a")
