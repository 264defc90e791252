"""The engine in process: the tokens of ``generate``, tokens per second, time to the first token."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch

from app.core.errors import InternalError, StartError
from app.core.settings import load_settings
from app.core.work.job_events import TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.generation.batched import BatchedEngine
from app.engine.loading.build import make_slots, prepare
from app.models.text_model import TextModel
from app.models.weights.quantization import model_bytes
from benchmarks.gpu.shapes import SHAPES
from benchmarks.load import median

ONE_BY_ONE = {"overlap_text": "false", "compile": "never"}
# Graphs off and on, rows whole and in blocks, tokens read before the next launch and behind it, steps compiled.
WAYS: dict[str, dict[str, object]] = {
    "eager": {"decode_runner": "eager", **ONE_BY_ONE},
    "graphs": {"decode_runner": "graphs", **ONE_BY_ONE},
    "paged": {"decode_runner": "paged", **ONE_BY_ONE},
    "paged, launched ahead": {"decode_runner": "paged", "compile": "never", "overlap_text": "true"},
}
COMPILED: dict[str, dict[str, object]] = {
    "paged, compiled, launched ahead": {"decode_runner": "paged", "compile": "auto", "overlap_text": "true"}
}
NUM_PROMPT, NUM_NEW = 130, 128
NUM_WARM_STEPS = 8
KINDS = ("int8", "fp8")


def ways_of(device: str) -> dict[str, dict[str, object]]:
    """Those that there are on ``device``: on a CPU steps are compiled as a whole by other means."""
    return WAYS | COMPILED if device == "cuda" else WAYS


def environ(shape: str, folder: Path, device: str, **settings: object) -> dict[str, str]:
    """Settings of every Forklift that is measured, in process or as a server."""
    fixed = {"model": folder, "device": device, "prefill_chunk_tokens": 2048, "max_new_tokens": 1024}
    values = {**fixed, "max_context_tokens": SHAPES[shape].served_context, **settings}
    return {f"FORKLIFT_{name.upper()}": str(value) for name, value in values.items()}


def loaded(shape: str, folder: Path, device: str, **settings: object) -> TextModel:
    found = prepare(load_settings(environ(shape, folder, device, **settings)), lambda _: None)
    if found.engine.cache is None or not isinstance(found.model, TextModel):
        raise SystemExit(f"{shape} does not run on slots here: see the log")
    return found.model


def random_ids(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(100, 8000) for _ in range(length)]


def job(prompt: list[int], num_new: int) -> Job:
    """Greedy, with the ids of its tokens in its events."""
    return Job("benchmark", prompt, SamplingParams(num_new, ignore_eos=True, num_logprobs=0))


def finish(engine: BatchedEngine, jobs: list[Job]) -> list[list[int]]:
    """The tokens of each job."""
    for one in jobs:
        engine.add(one)
    while engine.has_work:
        engine.step()
    return [
        [entry.token for event in one.next_events(0) if isinstance(event, TextDelta) for entry in event.logprobs]
        for one in jobs
    ]


@torch.inference_mode()
def parity(shape: str, folder: Path, device: str) -> dict[str, Any]:
    """Greedy tokens in float32 against ``generate``, each way, in batches of 1 to 64."""
    batches, num_new = SHAPES[shape].batches, SHAPES[shape].num_checked
    model = loaded(shape, folder, device, dtype="float32", decode_runner="eager")
    rng = random.Random(1)
    prompts = [random_ids(rng, rng.randrange(1, 200)) for _ in range(batches[-1])]
    expected = [generated(model, prompt, num_new) for prompt in prompts]
    rows = []
    for way, settings in ways_of(device).items():
        for size in batches:
            settings_of = load_settings(environ(shape, folder, device, max_batch_size=size, **settings))
            found = finish(make_slots(model, settings_of), [job(prompt, num_new) for prompt in prompts[:size]])
            wrong = [gap(model, *one) for one in zip(prompts, expected, found, strict=False) if one[1] != one[2]]
            equal = f"{size - len(wrong)} of {size}"
            rows.append({"way": way, "batch": size, "equal": equal, "largest gap": max(wrong, default=0.0)})
    return {"num_new": num_new, "rows": rows}


def generated(model: TextModel, prompt: list[int], num_new: int) -> list[int]:
    ids = torch.tensor([prompt], device=model.checkpoint.device)
    output = model.checkpoint.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=num_new, eos_token_id=None
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


def gap(model: TextModel, prompt: list[int], expected: list[int], found: list[int]) -> float:
    """How much better the expected token was than ours where they first differ, in logits: a tie is near 0."""
    at = next(i for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)) if ours != theirs)
    ids = torch.tensor([prompt + expected[:at]], device=model.checkpoint.device)
    logits = model.checkpoint.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1]
    return float(logits[expected[at]] - logits[found[at]])


def speed(shape: str, folder: Path, device: str) -> dict[str, Any]:
    """Decoding with one stream and with many, the first token of a long prompt, and what memory it took."""
    model = loaded(shape, folder, device, decode_runner="eager")
    network = model.checkpoint.model
    read = sum(p.numel() * p.element_size() for p in network.parameters())
    if not network.config.tie_word_embeddings:
        table = network.get_input_embeddings().weight
        read -= table.numel() * table.element_size()
    rows = [
        {"way": way, "streams": streams, **decoding(model, shape, folder, device, streams, settings)}
        for way, settings in ways_of(device).items()
        for streams in (1, SHAPES[shape].streams)
    ]
    figures = {"bytes_read_per_step": read, "rows": rows, **first_token(model, shape, folder, device)}
    if device == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return figures


@torch.inference_mode()
def quantized(shape: str, folder: Path, device: str) -> dict[str, Any]:
    """Weights of 8 bits: what the check at a load lets through, memory, and steps of one stream and of many."""
    rows = [as_quantized(kind, shape, folder, device) for kind in KINDS]
    return {"rows": rows}


def as_quantized(kind: str, shape: str, folder: Path, device: str) -> dict[str, Any]:
    """One row; where there is no such form here, why."""
    row: dict[str, Any] = {"weights": kind, "serves": None, "dropped": "", "GiB": None, "one": None, "many": None}
    streams, settings = SHAPES[shape].streams, {"quantization": kind, "max_batch_size": SHAPES[shape].streams}
    try:
        ready = prepare(load_settings(environ(shape, folder, device, **settings)), lambda _: None)
    except StartError as error:
        return row | {"serves": f"not: {error}"[:110]}
    if not isinstance(ready.model, TextModel) or not isinstance(ready.engine, BatchedEngine):
        return row | {"serves": ready.engine_name, "dropped": ", ".join(ready.dropped)}
    row |= {"serves": ready.settings.quantization, "dropped": ", ".join(ready.dropped)}
    row["GiB"] = model_bytes(ready.model.checkpoint.model) / 2**30
    for name, count in (("one", 1), ("many", streams)):
        row[name] = steps_of(ready.engine, shape, count)["tokens_per_s"]
    return row


def decoding(
    model: TextModel, shape: str, folder: Path, device: str, streams: int, settings: dict[str, object]
) -> dict[str, float]:
    """Steps of running streams; each ends with the transfer of its tokens, so the clock sees all of it."""
    engine = make_slots(model, load_settings(environ(shape, folder, device, max_batch_size=streams, **settings)))
    return steps_of(engine, shape, streams)


def steps_of(engine: BatchedEngine, shape: str, streams: int) -> dict[str, float]:
    """The same of an engine that is idle, and is again behind it."""
    rng, num_new = random.Random(2), SHAPES[shape].num_new
    jobs = [job(random_ids(rng, NUM_PROMPT), 2 * num_new) for _ in range(streams)]
    for one in jobs:
        engine.add(one)
    while min(one.usage.completion_tokens for one in jobs) < NUM_WARM_STEPS:
        engine.step()
    times = []
    for _ in range(num_new // 2):
        started = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - started)
    engine.fail_all(InternalError())
    entries = streams * (NUM_PROMPT + num_new // 4)
    kv_bytes = engine.runner.cache.bytes_per_token * entries
    return {"tokens_per_s": streams / median(times), "step_ms": median(times) * 1000, "kv_bytes_per_step": kv_bytes}


@torch.inference_mode()
def first_token(model: TextModel, shape: str, folder: Path, device: str) -> dict[str, float]:
    """A long prompt that nothing is known of, against one plain forward pass over as many tokens."""
    length, rng = SHAPES[shape].long_prompt, random.Random(3)
    fields = {"max_batch_size": 1, "max_context_tokens": length + 8, "compile": "never"}
    settings = load_settings(environ(shape, folder, device, **fields))
    ours, plain = [], []
    for _ in range(5):
        engine, prompt = make_slots(model, settings), random_ids(rng, length)
        started = time.perf_counter()
        finish(engine, [job(prompt, 1)])
        ours.append(time.perf_counter() - started)
        ids = torch.tensor([prompt], device=device)
        started = time.perf_counter()
        model.checkpoint.model(input_ids=ids, use_cache=True, logits_to_keep=1).logits.argmax(-1).tolist()
        plain.append(time.perf_counter() - started)
    return {"long_prompt": length, "ttft_ms": median(ours[1:]) * 1000, "forward_ms": median(plain[1:]) * 1000}
