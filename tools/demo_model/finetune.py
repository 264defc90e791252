"""Trains the exported demo model further, until a time that is given beforehand, and exports it.

The rate follows the clock and not the steps: warmup, then a linear decay that reaches 0 with the
time, however many steps a shared machine allows. The optimizers start afresh. Run it as
`python -m tools.demo_model.finetune`.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from rich.console import Console
from transformers import AutoTokenizer, Qwen2ForCausalLM

from tools.demo_model.export import export
from tools.demo_model.paths import BUILD_FOLDER, MODEL_FOLDER
from tools.demo_model.train import CHECKPOINT, Pace, Rows, Trainer, run

WARMUP_STEPS = 20


@dataclass
class Clock:
    """How much of `budget_s` has passed since it was made."""

    budget_s: float
    now: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.now()

    def share(self) -> float:
        """From 0 to 1, and no more."""
        return min(1.0, (self.now() - self.started) / self.budget_s)

    def rate(self, step: int, peak: float) -> float:
        """The share of the trainer's base rates for this step, at most `peak`."""
        return peak * min((step + 1) / WARMUP_STEPS, 1.0 - self.share())


def load_exported(trainer: Trainer, folder: Path) -> None:
    """Put the exported weights into the trainer's float32 model."""
    exported = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer.model.load_state_dict(exported.state_dict())


def average(trainer: Trainer, folder: Path, old_share: float) -> None:
    """Mix the exported weights into the trained ones, which gives back some of what was forgotten.

    Weight averaging between a model and its further training: Wortsman et al., arXiv 2109.01903.
    """
    exported = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for new, old in zip(trainer.model.parameters(), exported.parameters(), strict=True):
            new.lerp_(old, old_share)


def paces(trainer: Trainer, num_steps: int, clock: Clock, peak: float) -> Iterator[Pace]:
    """Until the clock has run down, or `num_steps` are done: the prepared rows last for no more."""
    while clock.share() < 1.0 and trainer.step < num_steps:
        yield clock.share(), clock.rate(trainer.step, peak)


@click.command()
@click.option("--minutes", default=75.0, show_default=True, help="Time until the rate is 0, pauses included.")
@click.option("--peak", default=0.5, show_default=True, help="Highest rate, as a share of the first training's.")
@click.option("--batch", default=10, show_default=True, help="Rows per step.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--model", type=click.Path(path_type=Path), default=MODEL_FOLDER, help="The exported model.")
@click.option("--old-share", default=0.0, show_default=True, help="Share of the old weights in the exported average.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in the folder instead.")
@click.option("--folder", type=click.Path(path_type=Path), default=BUILD_FOLDER, help="Where `prepare` wrote.")
@click.option("--output", type=click.Path(path_type=Path), default=MODEL_FOLDER, help="Where to export.")
def main(
    minutes: float,
    peak: float,
    batch: int,
    threads: int,
    model: Path,
    old_share: float,
    resume: bool,
    folder: Path,
    output: Path,
) -> None:
    """Go on from the exported weights with the prepared rows, and export the model."""
    torch.set_num_threads(threads)
    trainer = Trainer(seed=0)
    if resume:
        trainer.load(folder / CHECKPOINT)
    else:
        load_exported(trainer, model)
    rows = Rows(folder / "rows.npz", batch)
    run(trainer, rows, paces(trainer, len(rows), Clock(minutes * 60), peak), folder)
    average(trainer, model, old_share)
    export(trainer.model, AutoTokenizer.from_pretrained(model), output)
    Console().print(f"{trainer.step} of {len(rows)} steps")


if __name__ == "__main__":
    main()
