"""Trains the demo model on the prepared rows and exports it.

Muon moves the hidden matrices, AdamW the embedding, norms and biases, on a
warmup-stable-decay schedule: steps before the decay do not depend on the total,
so a run may be resumed with an earlier or a later end and equal a straight one.
Eager: torch.compile gave no speed on two CPU cores (2,480 against 2,460 tokens/s).
Run it as `python -m tools.demo_model.train`.
"""

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, Qwen2ForCausalLM

from tools.demo_model.export import export, model_config
from tools.demo_model.paths import BUILD_FOLDER, MODEL_FOLDER

WARMUP_STEPS = 40
MUON_RATE = 0.02
ADAMW_RATE = 0.004
CHECKPOINT_EVERY = 50
LOG_EVERY = 10
CHECKPOINT = "checkpoint.pt"
# How much of the training is behind a step, and its share of the base rates.
Pace = tuple[float, float]


class Rows:
    """The packed rows in training order, a batch per step."""

    def __init__(self, path: Path, batch: int) -> None:
        arrays = np.load(path)
        self._tokens, self._weights, self._segments = (arrays[name] for name in ("tokens", "weights", "segments"))
        self._batch = batch

    def __len__(self) -> int:
        return len(self._tokens) // self._batch

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids int64 (batch, seq), weights of their successors float32 (batch, seq), the attention mask.

        The mask is bool (batch, 1, seq, seq).
        """
        part = slice(step * self._batch, (step + 1) * self._batch)
        tokens = torch.from_numpy(self._tokens[part].astype(np.int64))
        weights = torch.from_numpy(self._weights[part].astype(np.float32)).roll(-1, dims=1)
        weights[:, -1] = 0
        segments = torch.from_numpy(self._segments[part].astype(np.int64))
        same = segments[:, None, :, None] == segments[:, None, None, :]
        return tokens, weights, same.tril()


def position_ids(mask: Tensor) -> Tensor:
    """Positions counted from each sample's start, int64 (batch, seq), from the attention mask."""
    return mask[:, 0].sum(dim=-1) - 1


class Trainer:
    """The model, its optimizers and the number of steps done."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = Qwen2ForCausalLM(model_config()).train()
        parameters = list(self.model.named_parameters())
        hidden = [p for name, p in parameters if p.ndim == 2 and "embed" not in name]
        other = [p for name, p in parameters if p.ndim != 2 or "embed" in name]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(hidden, lr=MUON_RATE, momentum=0.95, weight_decay=0.01),
            torch.optim.AdamW(other, lr=ADAMW_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]
        self.step = 0

    def loss(self, tokens: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
        """The weighted mean cross entropy of the learned tokens in nats, a scalar."""
        positions = position_ids(mask)
        learned = weights.flatten() > 0
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.model.model(tokens, attention_mask=mask, position_ids=positions, use_cache=False)[0]
            logits = self.model.lm_head(hidden.flatten(0, 1)[learned])
        labels = tokens.roll(-1, dims=1).flatten()[learned]
        nats = functional.cross_entropy(logits.float(), labels, reduction="none")
        return nats @ weights.flatten()[learned] / weights.sum()

    def train_step(self, rows: Rows, rate: float) -> float:
        """One update with the base rates scaled by `rate`; returns the mean loss in nats per token."""
        loss = self.loss(*rows.batch(self.step))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, base in zip(self.optimizers, (MUON_RATE, ADAMW_RATE), strict=True):
            optimizer.param_groups[0]["lr"] = base * rate
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return loss.item()

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]


def rate_at(step: int, steps: int, decay_steps: int) -> float:
    """Warmup, then 1, then a linear decay to 0 over the last `decay_steps`."""
    return max(0.0, min(1.0, (step + 1) / WARMUP_STEPS, (steps - step) / max(1, decay_steps)))


def paces(trainer: Trainer, steps: int, decay_steps: int) -> Iterator[Pace]:
    """Until the trainer has done `steps`."""
    while trainer.step < steps:
        yield trainer.step / steps, rate_at(trainer.step, steps, decay_steps)


def run(trainer: Trainer, rows: Rows, steps: Iterable[Pace], folder: Path) -> None:
    """A step for each pace; checkpoints now and then and at the end, lines of losses in `losses.tsv`."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress, (folder / "losses.tsv").open("a") as log:
        task = progress.add_task("Training", total=1.0)
        losses: list[float] = []
        started = time.monotonic()
        for share, rate in steps:
            losses.append(trainer.train_step(rows, rate))
            if trainer.step % LOG_EVERY == 0:
                mean, step_s = sum(losses) / len(losses), (time.monotonic() - started) / len(losses)
                log.write(f"{trainer.step}\t{share:.4f}\t{mean:.4f}\t{step_s:.2f}\n")
                log.flush()
                losses, started = [], time.monotonic()
                assert math.isfinite(mean), "the loss is no longer finite"
                progress.update(task, description=f"Training, loss {mean:.3f}")
            if trainer.step % CHECKPOINT_EVERY == 0:
                trainer.save(folder / CHECKPOINT)
            progress.update(task, completed=share)
    trainer.save(folder / CHECKPOINT)


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed of the initial weights.")
@click.option("--steps", default=1120, show_default=True, help="Steps in total.")
@click.option("--decay-steps", default=400, show_default=True, help="Steps of the final decay, within the total.")
@click.option("--batch", default=8, show_default=True, help="Rows of 1024 tokens per step.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the build folder.")
@click.option("--folder", type=click.Path(path_type=Path), default=BUILD_FOLDER, help="Where `prepare` wrote.")
@click.option("--output", type=click.Path(path_type=Path), default=MODEL_FOLDER, help="Where to export.")
def main(
    seed: int,
    steps: int,
    decay_steps: int,
    batch: int,
    threads: int,
    resume: bool,
    folder: Path,
    output: Path,
) -> None:
    """Train on the prepared rows and export the model."""
    torch.set_num_threads(threads)
    rows = Rows(folder / "rows.npz", batch)
    if steps > len(rows):
        raise click.BadParameter(f"the prepared rows last for {len(rows)} steps", param_hint="--steps")
    trainer = Trainer(seed)
    if resume:
        trainer.load(folder / CHECKPOINT)
    run(trainer, rows, paces(trainer, steps, decay_steps), folder)
    export(trainer.model, AutoTokenizer.from_pretrained(folder / "tokenizer"), output)


if __name__ == "__main__":
    main()
