"""What LoRA adapters cost: 16 streams over four of them against 16 on the base alone, on the same runner; without HTTP.

Run as ``GOMP_SPINCOUNT=10000 python -m benchmarks.adapters``, as workers have it. Engines take turns, a block of steps
each. ``--compiled`` has whole passes compiled first, where there is a compiler; ``--folder`` takes a model of your own.
"""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM

from app.core.settings import Settings, load_settings
from app.core.work.adapters import Adapter, AdapterName
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.batched import BatchedEngine
from app.engine.loading.build import prepare
from app.models.text_model import TextModel
from app.models.weights.adapters.adapter_store import AdapterStore
from benchmarks.engine import random_ids
from benchmarks.load import median
from benchmarks.report import show
from benchmarks.shapes import SHAPES, model_folder

NUM_STREAMS, NUM_ADAPTERS = 16, 4
BLOCK_STEPS = 10
MOST_STEPS_TO_BEGIN = 600
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapters(root: Path, base: Path, rank: int, count: int) -> list[AdapterName]:
    """Random adapters on all linear layers of ``base`` but the output's, as PEFT saves them."""
    model = AutoModelForCausalLM.from_pretrained(base)
    linear = [
        (name, layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.endswith(TARGETS)
    ]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(TARGETS), "bias": "none"}
    for seed in range(count):
        generator, tensors = torch.Generator().manual_seed(seed), {}
        for name, num_in, num_out in linear:
            down = torch.randn(rank, num_in, generator=generator) / math.sqrt(num_in)
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(num_out, rank, generator=generator) * 0.02
        (root / f"a{seed}").mkdir()
        save_file(tensors, root / f"a{seed}" / "adapter_model.safetensors")
        (root / f"a{seed}" / "adapter_config.json").write_text(json.dumps(config))
    return [AdapterName(f"a{seed}", str(root / f"a{seed}")) for seed in range(count)]


def prepared_of(settings: Settings) -> tuple[BatchedEngine, TextModel]:
    """An engine as a server would have it, and its model."""
    prepared = prepare(settings, lambda _: None)
    assert isinstance(prepared.engine, BatchedEngine) and isinstance(prepared.model, TextModel)
    return prepared.engine, prepared.model


def adapted_of(settings: Settings) -> tuple[BatchedEngine, AdapterStore]:
    """The same of a model that takes adapters."""
    engine, model = prepared_of(settings)
    assert model.adapters is not None
    return engine, model.adapters


def job_of(rng: random.Random, adapter: Adapter | None, num_new: int) -> Job:
    job = Job("benchmark", random_ids(rng, 130), SamplingParams(num_new, ignore_eos=True))
    if adapter is not None:
        job.adapter, job.owner = adapter, adapter.name.key
    return job


def begin(engine: BatchedEngine, adapters: list[Adapter | None], num_streams: int, num_new: int) -> None:
    """Streams over ``adapters`` in turn, whose prompts are read."""
    rng = random.Random(4)
    jobs = [job_of(rng, adapters[at % len(adapters)], num_new + MOST_STEPS_TO_BEGIN) for at in range(num_streams)]
    for job in jobs:
        engine.add(job)
    for _ in range(MOST_STEPS_TO_BEGIN):
        if all(job.timings.first_token_s is not None for job in jobs):
            return
        engine.step()
    raise AssertionError("the prompts take too many steps")


def block_s(engine: BatchedEngine) -> float:
    """Seconds of a step, over a block of them."""
    started_s = time.perf_counter()
    for _ in range(BLOCK_STEPS):
        engine.step()
    return (time.perf_counter() - started_s) / BLOCK_STEPS


def throughput(settings: Settings, names: list[AdapterName], runs: int) -> list[dict[str, object]]:
    """Blocks of steps of the base and of each mixture, in turn."""
    plain = settings.model_copy(update={"adapters": None})
    engines, mixtures = {"base": prepared_of(plain)[0]}, {"one adapter": 1, "four adapters": 4, "four and none": 5}
    num_new = BLOCK_STEPS * runs
    begin(engines["base"], [None], NUM_STREAMS, num_new)
    for kind, count in mixtures.items():
        engine, store = adapted_of(settings)
        adapters: list[Adapter | None] = [store.get(name) for name in names[:count]]
        begin(engine, adapters + [None] * (count - len(adapters)), NUM_STREAMS, num_new)
        engines[kind] = engine
    found: dict[str, list[float]] = {kind: [] for kind in engines}
    for _ in range(runs):
        for kind, engine in engines.items():
            found[kind].append(block_s(engine))
    return [
        {
            "streams over": kind,
            "runner": type(engines[kind].runner).__name__,
            "step ms": 1000 * median(times),
            "tokens/s": NUM_STREAMS / median(times),
            "% of base": 100 * median([a / b for a, b in zip(found["base"], times, strict=True)]),
        }
        for kind, times in found.items()
    ]


def arrivals(settings: Settings, names: list[AdapterName], runs: int) -> list[dict[str, object]]:
    """The longest step of 15 streams over three adapters when one more comes: of the base, of these, of another."""
    found: dict[str, list[float]] = {"nobody": [], "base": [], "an adapter that runs": [], "a new adapter": []}
    engine, store = adapted_of(settings)
    running = [store.get(name) for name in names[:3]]
    rng = random.Random(5)
    begin(engine, list(running), NUM_STREAMS - 1, 20 * runs)
    for at in range(runs):
        newest = store.get(AdapterName(names[3].name, names[3].folder, at + 1))
        for kind, adapter in {"base": None, "an adapter that runs": running[0], "a new adapter": newest}.items():
            found["nobody"] += [step_s(engine) for _ in range(3)]
            job = Job("benchmark", random_ids(rng, 8), SamplingParams(2, ignore_eos=True))
            job.adapter = adapter
            engine.add(job)
            found[kind].append(max(step_s(engine) for _ in range(3)))
        store.forget_other_than({one.name for one in running})
    return [{"who comes": kind, "longest step ms": 1000 * median(times)} for kind, times in found.items()]


def step_s(engine: BatchedEngine) -> float:
    started_s = time.perf_counter()
    engine.step()
    return time.perf_counter() - started_s


@click.command()
@click.option("--shape", type=click.Choice(sorted(SHAPES)), default="qwen2-6.8m")
@click.option("--folder", type=click.Path(exists=True, path_type=Path), help="A model instead of a shape.")
@click.option("--dtype", default="auto")
@click.option("--rank", default=16)
@click.option("--runs", default=15)
@click.option("--compiled", is_flag=True)
@click.option("--only", multiple=True, type=click.Choice(["throughput", "arrivals"]))
def main(
    shape: str, folder: Path | None, dtype: str, rank: int, runs: int, compiled: bool, only: tuple[str, ...]
) -> None:
    """Throughput over adapters against the base, and what it costs others when one comes."""
    base = folder or model_folder(shape)
    with TemporaryDirectory() as made:
        root = Path(made, "adapters")
        root.mkdir()
        names = write_adapters(root, base, rank, NUM_ADAPTERS)
        environ = {"MODEL": base, "DTYPE": dtype, "ADAPTERS": root, "MAX_BATCH_SIZE": NUM_STREAMS, "CACHE_DIR": made}
        environ["COMPILE"] = "always" if compiled else "never"
        settings = load_settings({f"FORKLIFT_{name}": str(value) for name, value in environ.items()})
        for name, measure in {"throughput": throughput, "arrivals": arrivals}.items():
            if not only or name in only:
                show(f"adapters: {name}, {base.name}", measure(settings, names, runs), rank=rank, compiled=compiled)


if __name__ == "__main__":
    main()
