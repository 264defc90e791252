"""What HTTP costs: one client over HTTP, the same engine in process, and ``generate``, in one run.

Run as ``python -m benchmarks.overhead`` (``make benchmark``). The three take turns, so that what
else the machine does falls on all of them.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path

import click

from app.core.settings import load_settings
from app.core.work.job_events import Finished
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.serve.processes.gpus import bind
from benchmarks.contenders import forklift, running
from benchmarks.load import closed_loop, median
from benchmarks.report import show
from benchmarks.shapes import DEMO, prompts

NUM_NEW = 64
NUM_PROMPT = 130


class InProcess:
    """The engine on its inference thread, without HTTP, in a process that is bound like a worker."""

    def __init__(self, folder: Path):
        settings = load_settings({"FORKLIFT_MODEL": str(folder)})
        bind(settings, (), 1)
        from app.engine.thread.inference import make_inference

        self._inference = make_inference(settings, 0, lambda *_: None)
        self._inference.start()
        while (model := self._inference.model) is None:
            time.sleep(0.05)
        self._model = model

    def tokens_per_s(self, texts: list[str]) -> float:
        started = time.perf_counter()
        for text in texts:
            job = Job("benchmark", self._model.encode(text), SamplingParams(NUM_NEW, ignore_eos=True))
            self._inference.submit(job)
            while not isinstance(job.next_events(60)[-1], Finished):
                pass
        return len(texts) * NUM_NEW / (time.perf_counter() - started)


class Generate:
    """``model.generate``, one request after another, in a process of its own with torch's defaults."""

    def __init__(self, folder: Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def tokens_per_s(self, texts: list[str]) -> float:
        import torch

        started = time.perf_counter()
        with torch.inference_mode():
            for text in texts:
                inputs = self._tokenizer(text, return_tensors="pt")
                output = self._model.generate(
                    **inputs, do_sample=False, max_new_tokens=NUM_NEW, min_new_tokens=NUM_NEW, pad_token_id=0
                )
                self._tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
        return len(texts) * NUM_NEW / (time.perf_counter() - started)


class Apart:
    """Runs one of the above in a process of its own: two pools of threads in one would disturb each other."""

    def __init__(self, kind: type[InProcess] | type[Generate], folder: Path):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=answer, args=(kind, folder, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def tokens_per_s(self, texts: list[str]) -> float:
        self._pipe.send(texts)
        return float(self._pipe.recv())


def answer(kind: type[InProcess] | type[Generate], folder: Path, pipe: Connection) -> None:
    """Body of the process: measure what comes until the other end is gone."""
    contender = kind(folder)
    pipe.send("ready")
    while True:
        try:
            pipe.send(contender.tokens_per_s(pipe.recv()))
        except (EOFError, OSError):
            return


def over_http(url: str, texts: list[str], stream: bool) -> float:
    bodies = [
        {"prompt": text, "max_tokens": NUM_NEW, "temperature": 0, "ignore_eos": True, "stream": stream}
        for text in texts
    ]
    return closed_loop(url, bodies, 1).tokens_per_s


@click.command()
@click.option("--model", type=click.Path(path_type=Path), default=DEMO, help="Folder of the model.")
@click.option("--runs", default=5, help="Turns; the table shows medians.")
@click.option("--requests", "num_requests", default=8, help="Requests per turn.")
def main(model: Path, runs: int, num_requests: int) -> None:
    """Tokens per second of one client: HTTP against in process against generate."""
    generate, engine = Apart(Generate, model), Apart(InProcess, model)
    figures: dict[str, list[float]] = {}
    with running(forklift("forklift", model)) as url:
        for run in range(runs + 1):
            texts = prompts(NUM_PROMPT, num_requests, seed=run)
            turn = {
                "model.generate": generate.tokens_per_s(texts),
                "engine in process": engine.tokens_per_s(texts),
                "HTTP": over_http(url, texts, stream=False),
                "HTTP, streamed": over_http(url, texts, stream=True),
            }
            for name, value in turn.items():
                if run:  # the first turn warms up
                    figures.setdefault(name, []).append(value)
    ratios = {
        name: median([value / base for value, base in zip(values, figures["engine in process"], strict=True)])
        for name, values in figures.items()
    }
    against = {
        name: median([value / base for value, base in zip(values, figures["model.generate"], strict=True)])
        for name, values in figures.items()
    }
    rows = [
        {
            "way": name,
            "tokens/s (median)": median(values),
            "% of in process": ratios[name] * 100,
            "% of generate": against[name] * 100,
        }
        for name, values in figures.items()
    ]
    show("overhead of HTTP, one client", rows, model=model.name, num_prompt=NUM_PROMPT, num_new=NUM_NEW, runs=runs)


if __name__ == "__main__":
    main()
