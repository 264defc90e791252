"""What the engine does inside, without HTTP: warm prefixes, smooth streams, prompt lookup, ways to decode.

Run as ``python -m benchmarks.engine``. Cold and warm, with and without, take turns in one run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from unittest.mock import patch

import click
import torch

from app.core.settings import load_settings
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.batched import BatchedEngine
from app.engine.loading.build import make_slots, prepare
from app.models.text_model import TextModel
from benchmarks.load import median, percentile
from benchmarks.report import show
from benchmarks.shapes import SHAPES, model_folder


def random_ids(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(100, 8000) for _ in range(length)]


def generator(model: TextModel, **settings: object) -> BatchedEngine:
    return make_slots(model, load_settings({f"FORKLIFT_{k.upper()}": str(v) for k, v in settings.items()}))


def job(prompt: list[int], num_new: int) -> Job:
    return Job("benchmark", prompt, SamplingParams(num_new, ignore_eos=True))


def finish(engine: BatchedEngine, *jobs: Job) -> float:
    """Seconds until all jobs have ended."""
    for one in jobs:
        engine.add(one)
    started = time.perf_counter()
    while engine.has_work:
        engine.step()
    return time.perf_counter() - started


def warm_prefix(model: TextModel, runs: int) -> dict[str, object]:
    """First token of a prompt of 1,000 tokens, cold, and again with 20 more."""
    rng = random.Random(1)
    cold, warm = [], []
    for _ in range(runs):
        engine = generator(model)
        prompt = random_ids(rng, 1000)
        cold.append(finish(engine, job(prompt, 1)))
        warm.append(finish(engine, job(prompt + random_ids(rng, 20), 1)))
    return {"cold_ms": median(cold) * 1000, "warm_ms": median(warm) * 1000, "warm_share": median(warm) / median(cold)}


def smooth_stream(model: TextModel, runs: int, chunk: int) -> dict[str, object]:
    """Gaps between the tokens of a running stream while a prompt of 2,000 tokens is prefilled."""
    rng = random.Random(2)
    p99, middle, worst = [], [], []
    for _ in range(runs):
        engine = generator(model, max_batch_size=2, prefill_chunk_tokens=chunk)
        stream = job(random_ids(rng, 100), 400)
        engine.add(stream)
        gaps = []
        for at in range(400):
            if at == 100:
                engine.add(job(random_ids(rng, 2000), 1))
            started = time.perf_counter()
            engine.step()
            gaps.append(time.perf_counter() - started)
        ordered = sorted(gaps[5:])
        p99.append(percentile(ordered, 99))
        middle.append(percentile(ordered, 50))
        worst.append(ordered[-1])
    ratio = median([a / b for a, b in zip(p99, middle, strict=True)])
    return {
        "gap_p50_ms": median(middle) * 1000,
        "gap_p99_ms": median(p99) * 1000,
        "p99_over_p50": ratio,
        "gap_max_ms": median(worst) * 1000,
    }


def editing(model: TextModel, runs: int, num_drafts: int) -> dict[str, object]:
    """An answer that repeats most of its prompt, as an editor's does: with drafts against without.

    Random weights repeat nothing, so the sampler is made to follow the text of an edited file:
    every 40th token differs from the prompt.
    """
    rng = random.Random(3)
    with_drafts, without = [], []
    for _ in range(runs):
        file = random_ids(rng, 400)
        answer = [rng.randrange(100, 8000) if i % 40 == 20 else token for i, token in enumerate(file[:160])]
        without.append(160 / following(model, generator(model), file, answer))
        with_drafts.append(160 / following(model, generator(model, prompt_lookup=num_drafts), file, answer))
    ratio = median([a / b for a, b in zip(with_drafts, without, strict=True)])
    return {"tokens_per_s": median(without), "with_lookup_tokens_per_s": median(with_drafts), "speed_up": ratio}


def following(model: TextModel, engine: BatchedEngine, prompt: list[int], answer: list[int]) -> float:
    """Seconds to generate ``answer``, which a bias makes the likeliest continuation."""
    from app.engine.generation import batched

    steps = iter(answer)
    with patch.object(batched, "choose", lambda logits, rows: [(next(steps, 0), None)]):
        return finish(engine, job(prompt, len(answer)))


KINDS = ("none", "int8", "int4")
MEASUREMENTS = ("prefix", "stream", "editing", "decoding", "quantized", "reading")
WAYS: dict[str, dict[str, object]] = {
    "eager": {},
    "bucketed": {"decode_runner": "bucketed"},
    "text after launch": {"overlap_text": True},
    "both": {"decode_runner": "bucketed", "overlap_text": True},
}


def decoding(model: TextModel, num_streams: int, num_steps: int) -> list[dict[str, object]]:
    """One step of ``num_streams`` running answers behind prompts of 130 tokens; the ways take turns step by step."""
    rng = random.Random(4)
    engines = {way: generator(model, max_batch_size=num_streams, **settings) for way, settings in WAYS.items()}
    for engine in engines.values():
        for _ in range(num_streams):
            engine.add(job(random_ids(rng, 130), num_steps + 200))
        for _ in range(100):  # every prompt is read, and a few tokens are there
            engine.step()
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(num_steps):
        for way, engine in engines.items():
            started = time.perf_counter()
            engine.step()
            times[way].append(time.perf_counter() - started)
    return [
        {
            "way": way,
            "streams": num_streams,
            "step p50 ms": median(found) * 1000,
            "tokens/s": num_streams / median(found),
            "% of eager": 100 * median(times["eager"]) / median(found),
        }
        for way, found in times.items()
    ]


def quantized(shape: str, runs: int) -> list[dict[str, object]]:
    """One answer of 64 tokens behind a prompt of 130, prefill included; the precisions take turns."""
    rng = random.Random(5)
    models = {kind: load(shape, kind) for kind in KINDS}
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(runs):
        prompt = random_ids(rng, 130)
        for kind, model in models.items():
            rates[kind].append(64 / finish(generator(model), job(prompt, 64)))
    ratios = {kind: median([a / b for a, b in zip(rates[kind], rates["none"], strict=True)]) for kind in KINDS}
    return [{"quantization": kind, "tokens/s": median(rates[kind]), "times none": ratios[kind]} for kind in KINDS]


def reading(shape: str, kind: str, num_rounds: int) -> list[dict[str, object]]:
    """How fast a compiled step of one row reads its weights, beside a plain sum over as many bytes, in turns."""
    environ = {"FORKLIFT_MODEL": str(model_folder(shape)), "FORKLIFT_QUANTIZATION": kind, "FORKLIFT_COMPILE": "always"}
    prepared = prepare(load_settings(environ), lambda _: None)
    engine, model = prepared.engine, prepared.model
    assert isinstance(engine, BatchedEngine) and isinstance(model, TextModel)
    assert prepared.is_compiled, "no compiled step; needs g++"
    num_bytes = read_bytes(model)
    block = torch.ones(num_bytes // 4)
    engine.add(job(random_ids(random.Random(6), 130), 4 * num_rounds + 200))
    for _ in range(100):  # the prompt is read, and a few tokens are there
        engine.step()
    steps: list[float] = []
    sums: dict[int, list[float]] = {1: [], torch.get_num_threads(): []}
    for _ in range(num_rounds):
        steps += [timed(engine.step) for _ in range(4)]
        for num_threads, found in sums.items():
            found.append(with_threads(num_threads, block.sum))
    rates = {f"sum, {number} threads": median(found) for number, found in sums.items()}
    rates["step"] = median(steps)
    most = num_bytes / 1e9 / min(rates[name] for name in rates if name != "step")
    return [
        {"read by": name, "ms": 1000 * took, "GB": num_bytes / 1e9, "GB/s": num_bytes / 1e9 / took}
        | {"% of the faster sum": 100 * num_bytes / 1e9 / took / most}
        for name, took in rates.items()
    ]


def read_bytes(model: TextModel) -> int:
    """Of the weights that one step reads: all, but of the embedding only where it is the output layer, too."""
    root = model.checkpoint.model
    tensors = [*root.parameters(), *root.buffers()]
    embedding, head = root.get_input_embeddings().weight, root.get_output_embeddings().weight
    unread = 0 if head is embedding else embedding.numel() * embedding.element_size()
    found: int = sum(one.numel() * one.element_size() for one in tensors) - unread
    return found


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def with_threads(number: int, work: Callable[[], object]) -> float:
    """Seconds of ``work`` on ``number`` threads."""
    usual = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        return timed(work)
    finally:
        torch.set_num_threads(usual)


def load(shape: str, kind: str) -> TextModel:
    environ = {"FORKLIFT_MODEL": str(model_folder(shape)), "FORKLIFT_QUANTIZATION": kind}
    model = prepare(load_settings(environ), lambda _: None).model
    assert isinstance(model, TextModel)
    return model


@click.command()
@click.option("--shape", type=click.Choice(sorted(SHAPES)), default="qwen2-6.8m")
@click.option("--quantization", type=click.Choice(KINDS), default="none")
@click.option("--runs", default=5)
@click.option("--chunk", default=256, help="Prefill chunk of the stream measurement.")
@click.option("--drafts", default=8, help="Draft tokens of the editing measurement.")
@click.option("--only", multiple=True, type=click.Choice(MEASUREMENTS), help="Some.")
def main(shape: str, quantization: str, runs: int, chunk: int, drafts: int, only: tuple[str, ...]) -> None:
    """Warm prefixes, smooth streams, prompt lookup, ways to decode, precisions."""
    model = load(shape, quantization)
    measurements: dict[str, Callable[[], list[dict[str, object]]]] = {
        "prefix": lambda: [warm_prefix(model, runs)],
        "stream": lambda: [smooth_stream(model, runs, chunk)],
        "editing": lambda: [editing(model, runs, drafts)],
        "decoding": lambda: decoding(model, 1, 60 * runs) + decoding(model, 16, 60 * runs),
        "quantized": lambda: quantized(shape, runs),
        "reading": lambda: reading(shape, quantization, 8 * runs),
    }
    for name in only or measurements:
        show(f"engine: {name}, {shape}", measurements[name](), quantization=quantization, runs=runs)


if __name__ == "__main__":
    main()
