"""Drives a generator without threads, and keeps the tokens of each job for comparison."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from app.core.settings import load_settings
from app.core.work.job_events import Event, Failed, Finished, TextDelta, TokenLogprob
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.checks.plain_cache import has_plain_cache
from app.engine.checks.plays import FULL
from app.engine.checks.steps import on_slots
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.sequence import Sequence
from app.engine.runners.choose import RunnerKind, make_runner
from app.engine.runners.eager import EagerRunner
from app.models.checkpoint.loader import load_checkpoint
from app.models.text_model import TextModel


def load(folder: Path, **environ: str) -> TextModel:
    settings = load_settings({"FORKLIFT_MODEL": str(folder), **environ})
    return TextModel("tiny", load_checkpoint(settings, lambda _: None), settings.max_context_tokens)


def generator_of(
    model: TextModel,
    *,
    max_running: int = 1,
    chunk: int = 256,
    reuse_prefix: bool = True,
    drafts: int = 0,
    runner: RunnerKind = "eager",
    overlap_text: bool = False,
) -> BatchedEngine:
    options = BatchOptions(max_running, chunk, reuse_prefix, drafts, overlap_text)
    return BatchedEngine(model, options, make_runner(runner, model.checkpoint, max_running, model.context_tokens))


def can_use_slots(model: TextModel) -> bool:
    """Whether separate passes on slots are what the check at a load accepts."""
    settings = load_settings({"FORKLIFT_MODEL": "unused"})
    return has_plain_cache(model) and on_slots(EagerRunner)(model, settings, FULL).failure is None


def greedy_reference(model: TextModel, prompt: list[int], num_new: int, **options: object) -> list[int]:
    """What transformers' own loop makes of ``prompt``."""
    ids = torch.tensor([prompt], device=model.checkpoint.device)
    output = model.checkpoint.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=num_new, **options
    )
    return output[0, len(prompt) :].tolist()


def random_prompt(rng: random.Random, length: int) -> list[int]:
    return [rng.randrange(8, 380) for _ in range(length)]


def greedy_job(prompt: list[int], num_new: int) -> Job:
    return Job("test", prompt, SamplingParams(num_new, ignore_eos=True))


def logits_of(model: TextModel, tokens: list[int]) -> torch.Tensor:
    """A plain forward pass: logits ``(len(tokens), vocab)``."""
    with torch.inference_mode():
        return model.checkpoint.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float()


class TokenLog:
    """Tokens in the order in which the engine accepted them, per job."""

    def __init__(self, monkeypatch):
        self._tokens: dict[Job, list[int]] = {}
        accept = Sequence.accept

        def logged(sequence: Sequence, token: int, logprob: TokenLogprob | None = None) -> None:
            self._tokens.setdefault(sequence.job, []).append(token)
            accept(sequence, token, logprob)

        monkeypatch.setattr(Sequence, "accept", logged)

    def of(self, job: Job) -> list[int]:
        return self._tokens.get(job, [])


def run(generator: BatchedEngine, *jobs: Job) -> None:
    for job in jobs:
        generator.add(job)
    while generator.has_work:
        generator.step()


def outcome(job: Job) -> tuple[str, Event]:
    """The joined text and the last event of a job that has ended."""
    events = job.next_events(0)
    assert isinstance(events[-1], Finished | Failed)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1]
