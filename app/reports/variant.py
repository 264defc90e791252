"""Measures one precision of one model, in a process of its own: speed, memory, and logits over a text.

The baseline writes its logits to a file, the candidates are compared with it window by window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.core.settings import Settings
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.checkpoint.unloading import give_back
from app.models.compiled.compiled_step import rows_to_pack_for
from app.models.compiled.steps.step_graph import model_shape
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.packing import owns_weights, pack, wants_packing
from app.models.weights.quantization import model_bytes, quantize
from app.reports.measuring_process import ReportError
from app.reports.process_memory import gpu_bytes, peak_resident_bytes, resident_bytes
from app.reports.scoring import Tally, num_positions, windows

Progress = Callable[[float], None]
# A prompt and its greedy continuation, of which there is one per part of the text.
NUM_PROMPTS = 4
PROMPT_TOKENS = 32
NEW_TOKENS = 32
# Of the run that tells the speed of a batch.
BATCH_ROWS = 16
# Of the progress bar: loading, greedy runs, the rest is scoring.
LOADED, DECODED = 0.3, 0.6


@dataclass(frozen=True)
class Plan:
    """What is scored: ids of the text in windows, and the prompts of the greedy runs."""

    pieces: list[list[int]]
    prompts: list[list[int]]


def measure_variant(
    settings: Settings, progress: Progress, *, text: str, num_tokens: int, window_tokens: int, logits: str, keep: bool
) -> dict[str, Any]:
    """Figures of the precision that ``settings`` ask for.

    ``keep`` makes this the baseline, whose logits go to the file ``logits``; others read them there.
    """
    torch.set_grad_enabled(False)
    before_bytes = resident_bytes()
    started_s = time.perf_counter()
    checkpoint = load(settings, progress)
    load_s = time.perf_counter() - started_s
    plan = make_plan(checkpoint, text, num_tokens, window_tokens)
    progress(LOADED)
    greedy, decode_s = continuations(checkpoint, plan.prompts, progress)
    batch_tokens_per_s = batch_speed(checkpoint, plan.prompts)
    give_back(checkpoint.device)
    memory = {"resident_bytes": resident_bytes() - before_bytes, "peak_bytes": peak_resident_bytes() - before_bytes}
    tally = score(checkpoint, plan.pieces, Path(logits), keep, progress)
    return {
        "perplexity": tally.perplexity,
        "mean_kl": None if keep else tally.mean_kl,
        "max_kl": None if keep else tally.max_kl,
        "top1_agreement": None if keep else tally.top1_agreement,
        "greedy": greedy,
        "num_scored_tokens": tally.num_tokens,
        "load_s": load_s,
        "weights_bytes": model_bytes(checkpoint.model),
        **memory,
        "gpu": gpu_bytes(checkpoint.device),
        "tokens_per_s": sum(map(len, greedy)) / decode_s,
        "batch_tokens_per_s": batch_tokens_per_s,
    }


def load(settings: Settings, progress: Progress) -> Checkpoint:
    """The model as it is served: fused, then quantised or packed.

    Raises ``StartError``, and ``ReportError`` for encoders.
    """
    checkpoint = load_checkpoint(settings, lambda share: progress(share * LOADED))
    if checkpoint.task != "generate":
        raise ReportError(
            f"{settings.model} is a {checkpoint.task} model: report precision compares next tokens, which it has not"
        )
    if owns_weights(checkpoint, settings):
        fuse_layers(checkpoint)
    if settings.quantization != "none":
        quantize(checkpoint, settings.quantization, settings.max_batch_size)
    elif wants_packing(checkpoint, settings):
        pack(checkpoint, num_rows=rows_to_pack_for(model_shape(checkpoint), settings, settings.max_batch_size))
    return checkpoint


def make_plan(checkpoint: Checkpoint, text: str, num_tokens: int, window_tokens: int) -> Plan:
    """Cut ``text`` up. Raises ``ReportError`` where it is too short to say anything."""
    ids = checkpoint.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    pieces = windows(ids, window_tokens, num_tokens)
    prompts = [piece[:PROMPT_TOKENS] for piece in pieces[:: max(len(pieces) // NUM_PROMPTS, 1)]][:NUM_PROMPTS]
    if not pieces:
        raise ReportError("the text has fewer than two tokens")
    return Plan(pieces, prompts)


def continuations(
    checkpoint: Checkpoint, prompts: list[list[int]], progress: Progress
) -> tuple[list[list[int]], float]:
    """Greedy tokens behind each prompt, and the seconds for all. An end token is never taken."""
    greedy(checkpoint, [prompts[0][:2]], 2)
    found, started_s = [], time.perf_counter()
    for i, prompt in enumerate(prompts):
        found += greedy(checkpoint, [prompt], NEW_TOKENS)
        progress(LOADED + (DECODED - LOADED) * (i + 1) / len(prompts))
    return found, time.perf_counter() - started_s


def batch_speed(checkpoint: Checkpoint, prompts: list[list[int]]) -> float:
    """New tokens per second of ``BATCH_ROWS`` rows together."""
    length = min(map(len, prompts))
    rows = [prompts[row % len(prompts)][:length] for row in range(BATCH_ROWS)]
    started_s = time.perf_counter()
    found = greedy(checkpoint, rows, NEW_TOKENS)
    return sum(map(len, found)) / (time.perf_counter() - started_s)


def greedy(checkpoint: Checkpoint, prompts: list[list[int]], num_new: int) -> list[list[int]]:
    """``num_new`` tokens of ``generate`` for each of ``prompts``, which are of one length."""
    ids = torch.tensor(prompts, device=checkpoint.device)
    output = checkpoint.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        pad_token_id=0,
        max_new_tokens=num_new,
        min_new_tokens=num_new,
    )
    new: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return new


def score(checkpoint: Checkpoint, pieces: list[list[int]], file: Path, keep: bool, progress: Progress) -> Tally:
    """Likelihood of the text; ``keep`` writes the logits to ``file``, else they are compared with it."""
    tally = Tally()
    with file.open("wb" if keep else "rb") as stored:
        for i, (logits, targets) in enumerate(passes(checkpoint, pieces)):
            baseline = None
            if keep:
                logits.contiguous().numpy().tofile(stored)
            else:
                held = bytearray(stored.read(logits.numel() * logits.element_size()))
                baseline = torch.frombuffer(held, dtype=torch.float32).view(logits.shape)
            tally.add(logits, targets, baseline)
            progress(DECODED + (1 - DECODED) * (i + 1) / len(pieces))
    assert tally.num_tokens == num_positions(pieces)
    return tally


def passes(checkpoint: Checkpoint, pieces: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each window float32 logits ``(tokens - 1, vocab)`` and the tokens that they predict, on the CPU."""
    for piece in pieces:
        ids = torch.tensor([piece], device=checkpoint.device)
        output = checkpoint.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        yield output.logits[0, :-1].float().cpu(), ids[0, 1:].cpu()
