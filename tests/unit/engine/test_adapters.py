"""LoRA adapters on one model in memory: each row says what a model merged with its adapter says."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch

from app.core.errors import AdapterFailedError
from app.core.work.adapters import Adapter, AdapterName
from app.core.work.jobs import Job
from app.engine.checks.reference import distance
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.plan import Chunk
from app.engine.generation.serial import SerialEngine
from app.engine.runners.compiled import NativeRunner
from app.engine.runners.mixed import MixedRunner
from app.models.text_model import TextModel
from app.models.weights import packing
from app.models.weights.adapters.adapter_bank import AdapterBank
from app.models.weights.adapters.adapter_tables import AdapterTables
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.packing import pack, pack_in_pieces, unpack_in_pieces
from app.models.weights.quantization import quantize
from tests.native_passes import COMPILER, native_pass
from tests.tiny_adapters import merged, save_adapter
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, load, random_prompt, run
from tests.unit.engine.test_parity import served
from tests.unit.engine.test_windowed import engine_of as windowed

NUM_NEW = 12
MAX_BYTES = 1 << 24
FORMS = [{}, {"rank": 8}, {"rank": 2, "alpha": 3, "use_rslora": True}, {"rank": 4, "alpha": 2}]


@pytest.fixture(scope="module")
def adapters(model_folder, tmp_path_factory):
    """Four folders of a family's adapters, of unlike ranks."""
    made: dict[str, list[Path]] = {}

    def of(family: str) -> list[Path]:
        if family not in made:
            root = tmp_path_factory.mktemp("adapters")
            made[family] = [
                save_adapter(root / f"a{seed}", model_folder(family), family, seed=seed, **form)
                for seed, form in enumerate(FORMS)
            ]
        return made[family]

    return of


def named(folder: Path, version: int = 0) -> AdapterName:
    return AdapterName(folder.name, str(folder), version)


def bank_of(model: TextModel, engine: BatchedEngine | SerialEngine) -> AdapterBank:
    bank = AdapterBank(model.checkpoint, MAX_BYTES)
    engine.use_adapters(bank)
    return bank


def job_of(prompt: list[int], bank: AdapterBank, folder: Path | None) -> Job:
    job = greedy_job(prompt, NUM_NEW)
    if folder is not None:
        job.adapter = bank.store.get(named(folder))
        job.owner = job.adapter.name.key
    return job


def references(base: Path, folders: list[Path | None], prompts: list[list[int]]) -> list[list[int]]:
    models = {folder: merged(base, folder) for folder in set(folders) if folder is not None}
    models[None] = load(base).checkpoint.model
    found = []
    for folder, prompt in zip(folders, prompts, strict=True):
        ids = torch.tensor([prompt])
        told = models[folder].generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NUM_NEW, eos_token_id=None
        )
        found.append(told[0, len(prompt) :].tolist())
    return found


@pytest.mark.parametrize("family", ["llama", *(pytest.param(one, marks=pytest.mark.slow) for one in ("qwen2", "gpt2"))])
def test_rows_of_four_adapters_and_of_none_are_those_of_merged_models(model_folder, adapters, monkeypatch, family):
    rng = random.Random(3)
    folders = [rng.choice([*adapters(family), None]) for _ in range(16)]
    prompts = [random_prompt(rng, rng.randrange(2, 60)) for _ in folders]
    expected = references(model_folder(family), folders, prompts)
    assert len({tuple(tokens) for tokens in expected}) > 8
    model = served(model_folder(family))
    # Fewer rows than jobs, and prompts in pieces: rows come and go, and are read beside others that decode.
    engine, log = generator_of(model, max_running=6, chunk=16), TokenLog(monkeypatch)
    bank = bank_of(model, engine)
    for is_warm in (False, True):
        jobs = [job_of(prompt, bank, folder) for prompt, folder in zip(prompts, folders, strict=True)]
        run(engine, *(jobs[::-1] if is_warm else jobs))
        assert [log.of(job) for job in jobs] == expected
    assert sum(job.usage.cached_tokens for job in jobs) > 0


def test_alone_and_with_drafts(model_folder, adapters, monkeypatch):
    folders, rng = [*adapters("llama"), None], random.Random(5)
    prompts = [random_prompt(rng, 20) for _ in folders]
    expected = references(model_folder("llama"), folders, prompts)
    for options in ({}, {"max_running": 3, "drafts": 4}):
        model = served(model_folder("llama"))
        engine, log = generator_of(model, **options), TokenLog(monkeypatch)
        bank = bank_of(model, engine)
        jobs = [job_of(prompt, bank, folder) for prompt, folder in zip(prompts, folders, strict=True)]
        run(engine, *jobs)
        assert [log.of(job) for job in jobs] == expected


def native_of(folder: Path, *, rows: int, chunk: int = 16, drafts: int = 0, **environ: str) -> BatchedEngine:
    """An engine on whole passes that g++ compiled."""
    model = load(folder, FORKLIFT_COMPILE="never", **environ)
    fuse_layers(model.checkpoint)
    runner = NativeRunner(native_pass(model.checkpoint), model.checkpoint, rows, model.context_tokens)
    return BatchedEngine(model, BatchOptions(rows, chunk, num_draft_tokens=drafts), runner)


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("family", "drafts"),
    [
        ("llama", 0),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("llama", 4), ("qwen2", 0), ("qwen3_moe", 0))),
    ],
)
def test_compiled_passes_say_what_merged_models_say(model_folder, adapters, monkeypatch, family, drafts):
    rng = random.Random(8)
    folders = [rng.choice([*adapters(family), None]) for _ in range(16)]
    prompts = [random_prompt(rng, rng.randrange(2, 60)) for _ in folders]
    engine, log = native_of(model_folder(family), rows=6, drafts=drafts), TokenLog(monkeypatch)
    bank = bank_of(engine._text_model, engine)
    passes = []
    make = engine.runner._run
    monkeypatch.setattr(engine.runner, "_run", lambda tokens: passes.append(make(tokens)) or passes[-1])
    jobs = [job_of(prompt, bank, folder) for prompt, folder in zip(prompts, folders, strict=True)]
    run(engine, *jobs)
    assert [log.of(job) for job in jobs] == references(model_folder(family), folders, prompts)
    # All but the very first, before which there are no buffers.
    assert sum(one is not None for one in passes) >= len(passes) - 1 > NUM_NEW
    assert not bank._stack.adapters or passes[0] is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("dtype", "kind", "tolerance"), [("bfloat16", "none", 6e-2), ("float16", "none", 1e-2), ("float32", "int8", 5e-2)]
)
@torch.inference_mode()
def test_compiled_passes_on_other_weights_differ_by_rounding_only(model_folder, adapters, dtype, kind, tolerance):
    environ = {"FORKLIFT_DTYPE": dtype, "FORKLIFT_QUANTIZATION": kind, "FORKLIFT_COMPILE": "never"}
    model = load(model_folder("llama"), **environ)
    fuse_layers(model.checkpoint)
    if kind == "int8":
        quantize(model.checkpoint, "int8", 1)
    bank = AdapterBank(model.checkpoint, MAX_BYTES)
    unpack_in_pieces(model.checkpoint, lambda: None)
    first, second = (bank.store.get(named(folder)) for folder in adapters("llama")[:2])
    rows = [(second, 1), (None, 1), (first, 1), (second, 1), (first, 9)]
    native = NativeRunner(native_pass(model.checkpoint), model.checkpoint, 6, 64)
    native.adapters = bank
    logits = []
    for runner in (MixedRunner(model.checkpoint, 6, 64), native):
        for row in range(5):
            MixedRunner.prefill(runner, row, [7, 8, 9, 10 + row], 0)
        with bank.rows(rows):
            told, chunks = runner.mixed([5, 6, 7, 8], [4] * 4, [Chunk(4, list(range(20, 29)), 4, all_logits=True)])
        logits.append(torch.cat([told[:, 0], *chunks]).float())
    assert float(distance(logits[1], logits[0]).max()) <= tolerance
    with bank.rows([(None, 1)] * 4 + [(None, 9)]):
        plain, _ = runner.mixed([5, 6, 7, 8], [4] * 4, [Chunk(4, list(range(20, 29)), 4)])
    assert float(distance(plain[:, 0].float(), logits[0][:4])[[0, 2, 3]].min()) > tolerance


def test_what_changes_more_than_the_layers_has_no_table(model_folder, adapters):
    model = load(model_folder("llama"))
    fuse_layers(model.checkpoint)
    adapter = AdapterBank(model.checkpoint, MAX_BYTES).store.get(named(adapters("llama")[0]))
    tables = AdapterTables(model.checkpoint.model)
    assert tables.table(adapter) is not None
    other = Adapter(adapter.name, {**adapter.parts, "model.other": next(iter(adapter.parts.values()))})
    assert tables.table(other) is None


@pytest.mark.parametrize("least_bytes", [0, packing.LEAST_BYTES])
def test_an_adapter_goes_on_where_a_layer_changes_its_layout(model_folder, adapters, monkeypatch, least_bytes):
    """As when a server changes to compiled passes while it runs."""
    model = load(model_folder("llama"), FORKLIFT_DTYPE="float32")
    fuse_layers(model.checkpoint)
    monkeypatch.setattr(packing, "LEAST_BYTES", least_bytes)
    pack(model.checkpoint, num_rows=packing.MANY_ROWS)
    bank = AdapterBank(model.checkpoint, MAX_BYTES)
    adapter = bank.store.get(named(adapters("llama")[1]))
    layers = model.checkpoint.model.model.layers
    inputs = torch.randn(3, layers[0].o_proj.in_features)

    def found() -> torch.Tensor:
        with torch.inference_mode(), bank.rows([(adapter, 3)]):
            return layers[0].o_proj(inputs)

    before = found()
    places = unpack_in_pieces(model.checkpoint, lambda: None)
    assert places
    torch.testing.assert_close(found(), before)
    pack_in_pieces(places, lambda: None)
    torch.testing.assert_close(found(), before)


def test_who_comes_with_a_new_adapter_costs_others_no_step(model_folder, adapters, monkeypatch):
    engine, log = generator_of(served(model_folder("llama")), max_running=4, runner="eager"), TokenLog(monkeypatch)
    bank = bank_of(engine._text_model, engine)
    rng = random.Random(9)
    running = [job_of(random_prompt(rng, 5), bank, folder) for folder in (*adapters("llama")[:2], None)]
    for job in running:
        engine.add(job)
    for _ in range(6):
        engine.step()
    for version in range(4):
        before = [len(log.of(job)) for job in running]
        coming = greedy_job(random_prompt(rng, 12), 1)
        coming.adapter = bank.store.get(named(adapters("llama")[3], version))
        engine.add(coming)
        engine.step()
        assert [len(log.of(job)) for job in running] == [count + 1 for count in before]
        bank.store.forget_other_than({job.adapter.name for job in running if job.adapter is not None})


@pytest.mark.slow
@pytest.mark.parametrize("drafts", [0, 4])
def test_beside_windows(model_folder, adapters, monkeypatch, drafts):
    rng = random.Random(7)
    folders = [*adapters("mistral"), None, adapters("mistral")[0]]
    prompts = [random_prompt(rng, rng.choice((5, 20, 90))) for _ in folders]
    engine, log = windowed(load(model_folder("mistral")), rows=3, drafts=drafts), TokenLog(monkeypatch)
    bank = bank_of(engine._text_model, engine)
    jobs = [job_of(prompt, bank, folder) for prompt, folder in zip(prompts, folders, strict=True)]
    run(engine, *jobs)
    assert [log.of(job) for job in jobs] == references(model_folder("mistral"), folders, prompts)


def test_through_generate(model_folder, adapters, monkeypatch):
    folders = [adapters("llama")[0], None, adapters("llama")[1]]
    prompts = [random_prompt(random.Random(6), 10)] * 3
    model = load(model_folder("llama"))
    engine, log = SerialEngine(model), TokenLog(monkeypatch)
    bank = bank_of(model, engine)
    jobs = [job_of(prompt, bank, folder) for prompt, folder in zip(prompts, folders, strict=True)]
    run(engine, *jobs)
    assert [log.of(job) for job in jobs] == references(model_folder("llama"), folders, prompts)


def test_one_adapters_prefix_is_not_anothers(model_folder, adapters):
    model = served(model_folder("llama"))
    engine = generator_of(model, max_running=4)
    bank = bank_of(model, engine)
    prompt = random_prompt(random.Random(1), 40)
    first, second = adapters("llama")[:2]
    jobs = [job_of(prompt, bank, folder) for folder in (first, second, None, first)]
    for job in jobs:
        run(engine, job)
    assert [job.usage.cached_tokens for job in jobs] == [0, 0, 0, 39]


@pytest.mark.parametrize("kind", ["int8", "int4"])
@torch.inference_mode()
def test_an_adapter_changes_quantised_layers_by_as_much(model_folder, adapters, kind):
    """Beside a model of rounded weights, what an adapter adds to a layer's output is not rounded."""
    folder = adapters("llama")[1]
    model = load(model_folder("llama"), FORKLIFT_QUANTIZATION=kind)
    quantize(model.checkpoint, kind, 1)
    bank = AdapterBank(model.checkpoint, MAX_BYTES)
    adapter = bank.store.get(named(folder))
    name = "model.layers.0.mlp.down_proj"
    layer, part = model.checkpoint.model.get_submodule(name), adapter.parts[name]
    inputs = torch.randn(5, layer.in_features).to(model.checkpoint.dtype)
    plain = layer(inputs)
    with bank.rows([(adapter, 2), (None, 3)]):
        found = layer(inputs)
    change = inputs.float() @ torch.from_numpy(part.down).t() @ torch.from_numpy(part.up)
    tolerance = 1e-4 if kind == "int8" else 0.05
    torch.testing.assert_close((found - plain)[:2].float(), change[:2], rtol=tolerance, atol=tolerance)
    assert torch.equal(found[2:], plain[2:])


def test_a_change_that_overflows_stays_in_its_own_rows(model_folder, adapters):
    model = served(model_folder("llama"))
    bank = AdapterBank(model.checkpoint, MAX_BYTES)
    good, bad = (bank.store.get(named(folder)) for folder in adapters("llama")[:2])
    for part in bad.parts.values():
        part.down[:] = 3e38
    layer = model.checkpoint.model.model.layers[0].o_proj
    inputs = torch.ones(2, layer.in_features)
    with torch.inference_mode():
        with bank.rows([(good, 1)]):
            alone = layer(inputs[:1])
        with bank.rows([(good, 1), (bad, 1)]):
            beside = layer(inputs)
    assert not beside[1].isfinite().all()
    torch.testing.assert_close(beside[0], alone[0])


@pytest.mark.slow
def test_two_hundred_loads_and_unloads_leave_no_more_than_one(model_folder, adapters, monkeypatch):
    model = served(model_folder("llama"))
    engine = generator_of(model, max_running=2)
    bank = bank_of(model, engine)
    prompt = random_prompt(random.Random(2), 4)
    for version in range(200):
        name = named(adapters("llama")[version % 4], version)
        job = greedy_job(prompt, 2)
        job.adapter, job.owner = bank.store.get(name), name.key
        run(engine, job)
        bank.store.forget_other_than(set())
    engine.rest(0.0)
    assert bank.store.num_bytes == 0
    assert bank._stack.adapters == [] and not bank._used


def test_the_least_recently_used_one_is_dropped(model_folder, adapters):
    model = served(model_folder("llama"))
    folders = adapters("llama")
    bank = AdapterBank(model.checkpoint, MAX_BYTES)
    sizes = [bank.store.get(named(folder)).num_bytes for folder in folders[:2]]
    small = AdapterBank(model.checkpoint, sum(sizes)).store
    first, _ = small.get(named(folders[0])), small.get(named(folders[1]))
    assert small.get(named(folders[0])) is first
    small.get(named(folders[2]))
    assert small.get(named(folders[0])) is first
    assert small.num_bytes <= sum(sizes)


@pytest.mark.parametrize("fault", ["other sizes", "no such layer", "nothing there"])
def test_a_broken_adapter_fails_alone(model_folder, adapters, tmp_path, fault):
    model = served(model_folder("llama"))
    store = AdapterBank(model.checkpoint, MAX_BYTES).store
    folder = tmp_path / "broken"
    if fault == "other sizes":
        save_adapter(folder, model_folder("qwen2"), "qwen2", seed=0)
        (folder / "adapter_model.safetensors").write_bytes(b"")
    elif fault == "no such layer":
        save_adapter(folder, model_folder("gpt2"), "gpt2", seed=0)
    with pytest.raises(AdapterFailedError, match="the adapter broken could not be loaded"):
        store.get(named(folder))
    assert store.get(named(adapters("llama")[0])).parts
