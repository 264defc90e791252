"""What grammars cost: tokens per second of streams that follow one, against the same streams free; without HTTP.

Run as ``GOMP_SPINCOUNT=10000 python -m benchmarks.constrained``, as workers have it (less beside busy processes).
Free and constrained take turns, a block of steps each: a grammar's process works while the model does, and would work
for nothing while another engine's model does.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, replace

import click
import psutil

from app.core.work.jobs import Job
from app.core.work.sampling_params import Constraint, SamplingParams
from app.engine.generation.batched import BatchedEngine
from app.models.grammars.running_grammar import Grammar
from app.models.text_model import TextModel
from benchmarks.engine import generator, load, random_ids
from benchmarks.load import median
from benchmarks.report import show
from benchmarks.shapes import SHAPES

BLOCK_STEPS = 10
ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 4},
        "count": {"type": "integer", "minimum": 0, "maximum": 99999},
        "state": {"enum": ["open", "closed", None]},
        "note": {"type": "string", "minLength": 40},
    },
    "required": ["name", "count", "state", "note"],
    "additionalProperties": False,
}


def schema(least: int) -> str:
    """A list that does not end while it is measured."""
    return json.dumps({"type": "array", "items": ITEM, "minItems": least})


def constraints(num_streams: int) -> dict[str, list[Constraint]]:
    """What each stream follows, by how it is measured."""
    call = {"notation": "hermes", "schemas": {"f": {"type": "object", "properties": {"a": json.loads(schema(900))}}}}
    rules = json.dumps({**call, "is_required": True, "is_parallel": True})
    return {
        "one schema": [Constraint("json_schema", schema(900))] * num_streams,
        "a schema each": [Constraint("json_schema", schema(900 + at)) for at in range(num_streams)],
        "one tool": [Constraint("tool_calls", rules)] * num_streams,
        "one pattern": [Constraint("regex", "([a-z ,.]{3,20}\\n){800}")] * num_streams,
    }


def started(model: TextModel, grammars: list[Grammar | None], temperature: float, num_steps: int) -> BatchedEngine:
    """An engine whose streams have read their prompts of 130 tokens and begun."""
    rng = random.Random(4)
    engine = generator(model, max_batch_size=len(grammars))
    params = SamplingParams(num_steps, temperature=temperature, seed=1, ignore_eos=True)
    for grammar in grammars:
        engine.add(Job("benchmark", random_ids(rng, 130), replace(params, grammar=grammar)))
    for _ in range(60):
        engine.step()
    return engine


@dataclass(frozen=True, slots=True)
class Block:
    """What a step took, over a block of them: by the clock, and of the inference thread's processor time."""

    clock_s: float
    thread_s: float


def block(engine: BatchedEngine, num_steps: int = BLOCK_STEPS) -> Block:
    clock_s, thread_s = time.perf_counter(), time.thread_time()
    for _ in range(num_steps):
        engine.step()
    return Block((time.perf_counter() - clock_s) / num_steps, (time.thread_time() - thread_s) / num_steps)


def processor_s(grammars: list[Grammar | None]) -> float:
    """Processor time of the grammars' processes so far."""
    pids = {grammar.pid for grammar in grammars if grammar is not None}
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(one.user + one.system for one in times)


def compare(model: TextModel, kind: str, num_streams: int, runs: int, temperature: float) -> dict[str, object]:
    """Blocks of steps, free and constrained in turn."""
    wanted = constraints(num_streams)[kind]
    grammars: list[Grammar | None] = [model.constraints.compiled(one) for one in wanted]
    num_steps = BLOCK_STEPS * runs + 100
    free_ones: list[Grammar | None] = [None] * num_streams
    engines = [started(model, some, temperature, num_steps) for some in (free_ones, grammars)]
    before_s = processor_s(grammars)
    blocks = [[block(engine) for engine in engines] for _ in range(runs)]
    masks_s = (processor_s(grammars) - before_s) / (BLOCK_STEPS * runs)
    free, held = ([pair[at] for pair in blocks] for at in (0, 1))
    return {
        "constraint": kind,
        "streams": num_streams,
        "free tokens/s": num_streams / median([one.clock_s for one in free]),
        "constrained tokens/s": num_streams / median([one.clock_s for one in held]),
        "%": 100 * median([a.clock_s / b.clock_s for a, b in zip(free, held, strict=True)]),
        "thread ms more": 1000 * median([b.thread_s - a.thread_s for a, b in zip(free, held, strict=True)]),
        "masks ms": 1000 * masks_s,
    }


@click.command()
@click.option("--shape", type=click.Choice(sorted(SHAPES)), default="qwen2-6.8m")
@click.option("--runs", default=25)
@click.option("--streams", default=16)
@click.option("--temperature", default=1.0)
@click.option("--only", multiple=True, type=click.Choice(sorted(constraints(1))))
def main(shape: str, runs: int, streams: int, temperature: float, only: tuple[str, ...]) -> None:
    """One schema for all streams, one each, one tool, one pattern."""
    model = load(shape, "none")
    for kind in only or constraints(1):
        row = compare(model, kind, streams, runs, temperature)
        show(f"constrained: {shape}, {kind}", [row], runs=runs, temperature=temperature)
    model.constraints.close()


if __name__ == "__main__":
    main()
