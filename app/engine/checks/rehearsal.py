"""Plays a few requests on an engine, as it will serve them, and compares every token with plain forward passes.

The play has what serving has: a prompt in pieces, prompts read beside running rows, rows of unlike lengths that decode
together and change their places, a prefix that is found in a free row and one that is copied from a busy one, prompts
that are scored, likeliest tokens and drawn ones. How much of each, ``plays`` says.
Inference thread only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from app.core.work.job_events import Failed, Finished, PromptScored, TextDelta, TokenLogprob
from app.core.work.jobs import BaseJob, Job
from app.core.work.sampling_params import SamplingParams
from app.engine.checks.plays import Play
from app.engine.checks.reference import plain_results, probe_tokens, range_of
from app.engine.engine_interface import Engine
from app.engine.guard import Guard
from app.models.text_model import TextModel

NUM_COMPARED = 8
MAX_STEPS = 200
# Of a request's tokens; where rounding sends a token to another expert its logits are those of another model.
FLIPPED_SHARE = 0.25
T = TypeVar("T")


class StrictGuard(Guard):
    """Lets through what a pass raises: in the play that is an answer."""

    def run(self, jobs: Sequence[BaseJob], work: Callable[[], T]) -> T | None:
        return work()


def rehearse(
    engine: Engine, model: TextModel, played: Play, tolerance: float, *, is_strict: bool = True, repeats: bool = False
) -> str | None:
    """What was wrong, in words; None where each token was right within ``tolerance``, a share of the logits' range.

    Not ``is_strict``: a quarter of each request's tokens may be further off. ``repeats`` adds a prompt that repeats
    itself, for engines that guess from it.
    """
    engine.guard = StrictGuard(model.checkpoint.device)
    jobs = play_jobs(model, played, repeats=repeats)
    try:
        play(engine, jobs)
    except Exception as error:
        return f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    for name, job in jobs.items():
        wrong = wrong_in(job, model, tolerance, is_strict=is_strict)
        if wrong is not None:
            return f"{wrong} ({name})"
    return None


def play_jobs(model: TextModel, played: Play, *, repeats: bool) -> dict[str, Job]:
    """The requests of the play, by what each stands for, those that find most first."""
    tokens = probe_tokens(model, played.num_long + played.num_short + 2 * played.num_other)
    long, short = tokens[: played.num_long], tokens[played.num_long : played.num_long + played.num_short]
    first, second = tokens[-2 * played.num_other : -played.num_other], tokens[-played.num_other :]
    requests: list[tuple[str, list[int], dict[str, Any]]] = [
        ("a prompt in pieces", long, {"num_prompt_logprobs": NUM_COMPARED}),
        ("a prompt beside another", short, {"temperature": 1.0, "top_k": 1}),
        ("a prefix from a free row", long[: played.num_shared] + first, {}),
        ("a prefix from a busy row", short[:6] + second, {}),
    ]
    wanted = zip(requests, played.new_tokens, strict=False)
    jobs = {name: job(model, prompt, num_new, **options) for (name, prompt, options), num_new in wanted}
    if repeats:
        jobs["a prompt that repeats itself"] = job(model, (short[:4] * 4)[:-1], 4)
    return jobs


def job(model: TextModel, prompt: list[int], num_new: int, **options: Any) -> Job:
    """A request for ``num_new`` tokens behind ``prompt``, or as many as the context has room for."""
    prompt = prompt[: max(model.context_tokens - num_new, 1)]
    num_new = min(num_new, model.context_tokens - len(prompt))
    return Job("self-check", prompt, SamplingParams(num_new, ignore_eos=True, num_logprobs=NUM_COMPARED, **options))


def play(engine: Engine, jobs: dict[str, Job]) -> None:
    """Bring every job to its end.

    Two pieces of the first are read alone, the second comes for its last one, the others when the first has left; the
    third is alone at its end.
    """
    first, second, *rest = jobs.values()
    engine.add(first)
    engine.step()
    engine.step()
    engine.add(second)
    advance(engine, lambda: first.has_ended)
    for one in rest:
        engine.add(one)
    advance(engine, lambda: not engine.has_work)


def advance(engine: Engine, is_there: Callable[[], bool]) -> None:
    """Step until ``is_there``. Raises ``RuntimeError`` where that takes too long."""
    for _ in range(MAX_STEPS):
        if is_there():
            return
        engine.step()
    raise RuntimeError("the requests do not come to an end")


def wrong_in(job: Job, model: TextModel, tolerance: float, *, is_strict: bool) -> str | None:
    """What was wrong with an answer; None where nothing was."""
    events = job.next_events(0)
    if isinstance(events[-1], Failed) or not isinstance(events[-1], Finished):
        return "a request failed"
    scored = [entry for event in events if isinstance(event, PromptScored) for entry in event.logprobs]
    generated = [entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    if len(generated) != job.params.max_new_tokens:
        return f"{len(generated)} tokens instead of {job.params.max_new_tokens}"
    if not generated:
        return None
    tokens = job.prompt_ids + [entry.token for entry in generated]
    logits = plain_results(model.checkpoint, tokens[:-1])
    first = len(job.prompt_ids) - 1
    allowed = tolerance * range_of(logits)
    off = [entry_error(entry, row) for entry, row in zip(scored, logits, strict=False)]
    off += [choice_error(entry, row) for entry, row in zip(generated, logits[first:], strict=True)]
    num_off = sum(not error <= allowed for error in off)
    if num_off > (0 if is_strict else FLIPPED_SHARE * len(off)):
        return f"{num_off} of {len(off)} tokens are not what a plain forward pass gives, by up to {max(off):.2g}"
    return None


def entry_error(entry: TokenLogprob, logits: torch.Tensor) -> float:
    """Largest difference between the log-probabilities that were given and those of the plain ``logits``."""
    expected = logits.log_softmax(dim=-1)
    given = [(entry.token, entry.logprob), *entry.top]
    pairs = [(logprob, float(expected[token])) for token, logprob in given]
    errors = [0.0 if left == right else abs(left - right) for left, right in pairs]
    return math.inf if any(map(math.isnan, errors)) else max(errors)


def choice_error(entry: TokenLogprob, logits: torch.Tensor) -> float:
    """The same, or by how much the token that was taken is less likely than the likeliest."""
    return max(entry_error(entry, logits), float(logits.max() - logits[entry.token]) / 2)
