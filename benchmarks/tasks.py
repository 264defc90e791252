"""Tasks of texts: Forklift under a load of clients, beside a Flask program and transformers' pipeline in process.

Run as ``python -m benchmarks.tasks``. A classifier and a reranker of MiniLM's shape and a T5-small, all with random
weights. Both servers of a task run throughout and are measured in turns; the table shows medians over the runs.
Processor time per request is told beside: where a machine is shared it says more than the clock does, with
``OMP_NUM_THREADS=1`` in the environment, since threads of OpenMP that wait for each other spin.
"""

from __future__ import annotations

import random
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import psutil

from app.cli.loadtest.loops import Load
from app.cli.loadtest.timed_request import Target
from benchmarks.contenders import Contender, forklift, running
from benchmarks.load import median
from benchmarks.report import show
from benchmarks.shapes import DEMO, FOLDER, prompts

NUM_DOCUMENTS = 8
# Of --requests, so that every task takes a minute or two.
SHARES = {"classify": 3.0, "rerank": 0.4, "seq2seq": 1.0}
QUERY = "which function of the standard library opens a file"
# Whose figure each is a multiple of.
PLAIN = "plain flask"


def task_folder(task: str) -> Path:
    """A loadable folder with random weights."""
    folder = FOLDER / f"task-{task}"
    if not (folder / "model.safetensors").exists():
        _write(task, folder)
    return folder


def _write(task: str, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, T5Config
    from transformers import T5ForConditionalGeneration as Translator

    torch.manual_seed(0)
    if task == "seq2seq":
        shape = {"d_model": 512, "d_ff": 2048, "d_kv": 64, "num_layers": 6, "num_heads": 8}
        model: Any = Translator(T5Config(vocab_size=32128, **shape, decoder_start_token_id=0, eos_token_id=None))
        model.generation_config.eos_token_id = None
    else:
        names = ["LABEL_0"] if task == "rerank" else ["bad", "fair", "good"]
        shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
        config = BertConfig(vocab_size=30522, **shape, id2label=dict(enumerate(names)), pad_token_id=0)
        model = BertForSequenceClassification(config)
    folder.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(DEMO).save_pretrained(folder)
    model.save_pretrained(folder)


def bodies(task: str, num_tokens: int, count: int, num_new: int, seed: int) -> list[dict[str, Any]]:
    """``count`` requests, which both servers of a task understand."""
    texts = mixed(num_tokens, count * NUM_DOCUMENTS if task == "rerank" else count, seed)
    if task == "seq2seq":
        return [{"prompt": text, "max_tokens": num_new} for text in texts]
    if task == "classify":
        return [{"input": text} for text in texts]
    groups = [texts[at : at + NUM_DOCUMENTS] for at in range(0, len(texts), NUM_DOCUMENTS)]
    return [{"query": QUERY, "documents": group} for group in groups]


def mixed(most_tokens: int, count: int, seed: int) -> list[str]:
    """Texts of all lengths up to ``most_tokens``."""
    rng = random.Random(seed)
    words = [text.split(" ") for text in prompts(most_tokens, count, seed=seed)]
    return [" ".join(one[: rng.randint(1, len(one))]) for one in words]


PATHS = {"classify": "/classify", "rerank": "/rerank", "seq2seq": "/v1/completions"}


def servers(task: str, concurrency: int) -> dict[str, tuple[Contender, str]]:
    """Each with the path that the task has there."""
    folder = task_folder(task)
    # Code for an encoder's layers is made before the first run.
    code = {"compile": "always", "cache_dir": FOLDER / "packages"}
    own = forklift(f"forklift {task}", folder, max_batch_size=concurrency, http_threads=2 * concurrency + 8, **code)
    command = (sys.executable, "-m", "benchmarks.task_flask", task, str(folder), "{port}")
    plain = Contender(f"{PLAIN} {task}", command, "/readyz", can_stream=False)
    return {"forklift": (replace(own, extra_fields={}), PATHS[task]), PLAIN: (plain, "/")}


@dataclass(frozen=True)
class Figures:
    """Of one run: requests per second, and what one takes of processors."""

    per_s: float
    cpu_ms: float


def loaded(target: Target, given: list[dict[str, Any]], concurrency: int) -> Figures:
    """A load on one server, while the other is idle. Raises ``ClickException`` where a request failed."""
    before_s = children_s()
    summary = Load(target, given).closed(concurrency)
    if summary.errors():
        raise click.ClickException(f"requests failed: {summary.errors()}")
    return Figures(len(summary.ok) / summary.duration_s, (children_s() - before_s) / len(given) * 1000)


def children_s() -> float:
    """Processor time of the servers so far."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def in_process(task: str, given: list[dict[str, Any]]) -> Figures:
    """The pipeline with batches of 16, with nothing between."""
    from transformers import pipeline

    classify = pipeline("text-classification", model=str(task_folder(task)))
    inputs: list[Any] = [one["input"] for one in given if "input" in one]
    inputs += [{"text": one["query"], "text_pair": text} for one in given for text in one.get("documents", [])]
    classify(inputs[:16], batch_size=16)
    started_s, cpu_s = time.perf_counter(), time.process_time()
    classify(inputs, batch_size=16)
    per_s = len(given) / (time.perf_counter() - started_s)
    return Figures(per_s, (time.process_time() - cpu_s) / len(given) * 1000)


def measure(
    task: str, num_tokens: int, num_new: int, concurrency: int, num_requests: int, runs: int
) -> list[dict[str, Any]]:
    """A row for each way to do one task."""
    found: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        started = {
            name: Target(stack.enter_context(running(contender)), path)
            for name, (contender, path) in servers(task, concurrency).items()
        }
        for target in started.values():
            loaded(target, bodies(task, num_tokens, concurrency // 2, num_new, 99), concurrency)
        for run in range(runs):
            for name, target in started.items():
                count = num_requests if name == "forklift" else max(num_requests // 3, concurrency)
                given = bodies(task, num_tokens, count, num_new, run)
                found.setdefault(name, []).append(loaded(target, given, concurrency))
            if task != "seq2seq":
                given = bodies(task, num_tokens, num_requests, num_new, run)
                found.setdefault("pipeline, batches of 16", []).append(in_process(task, given))
    return [row(task, name, runs_of, found["forklift"]) for name, runs_of in found.items()]


def row(task: str, name: str, runs: list[Figures], own: list[Figures]) -> dict[str, Any]:
    """Medians of one way; how many times as much Forklift does, by the clock and by processor time."""
    per_s, cpu_ms = median([run.per_s for run in runs]), median([run.cpu_ms for run in runs])
    return {
        "task": task,
        "way": name,
        "requests/s": per_s,
        "CPU ms/request": cpu_ms,
        "forklift is x times": median([run.per_s for run in own]) / per_s,
        "by CPU": cpu_ms / median([run.cpu_ms for run in own]),
    }


@click.command()
@click.option("--task", "tasks", multiple=True, type=click.Choice(sorted(PATHS)), help="All without it.")
@click.option("--concurrency", default=16, help="Clients.")
@click.option("--requests", "num_requests", default=96, help="Per run; a third of it for the Flask program.")
@click.option("--tokens", "num_tokens", default=60, help="Of the longest text; all lengths up to it are as likely.")
@click.option("--new", "num_new", default=32, help="Tokens of each text that is made.")
@click.option("--runs", default=3)
def main(tasks: tuple[str, ...], concurrency: int, num_requests: int, num_tokens: int, num_new: int, runs: int) -> None:
    """Compare ways to serve tasks of texts under a closed loop."""
    facts = {"clients": concurrency, "tokens": num_tokens, "new": num_new, "runs": runs, "documents": NUM_DOCUMENTS}
    for task in tasks or sorted(PATHS):
        count = max(int(num_requests * SHARES[task]), concurrency)
        rows = measure(task, num_tokens, num_new, concurrency, count, runs)
        show(f"{task}, {concurrency} clients", rows, requests=count, **facts)


if __name__ == "__main__":
    main()
