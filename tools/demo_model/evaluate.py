"""Measures the exported demo model and writes the figures of its card.

Loads the committed folder as a service would, in bfloat16 on the CPU, and
decodes greedily. Run it as `python -m tools.demo_model.evaluate`.
"""

import json
import math
import platform
import random
import warnings
from collections.abc import Sequence
from pathlib import Path

import click
import torch
import transformers
from rich.console import Console
from rich.progress import track
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from tools.demo_model.corpus import SourceFile, source_files
from tools.demo_model.functions import known_functions
from tools.demo_model.held_out import (
    draw_function_starts,
    draw_known_holes,
    draw_line_holes,
    first_line,
    parses,
    whole_lines,
)
from tools.demo_model.infill import Hole
from tools.demo_model.paths import MODEL_FOLDER
from tools.demo_model.questions import Pair, canonical_question, pairs

CONTEXT_TOKENS = 1024
Figures = dict[str, float | int | str]


class Evaluator:
    """The model under test, its tokenizer and the seed of all draws."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self._tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
        self._ends: list[int] = self._model.generation_config.eos_token_id
        self._newlines = [id for id in range(len(self._tokenizer)) if "\n" in self._tokenizer.decode([id])]
        self._seed = seed
        self.num_parameters = self._model.num_parameters()

    @torch.inference_mode()
    def complete(self, prompt: str, max_new_tokens: int, *, one_line: bool = False) -> str:
        """The greedy completion as text, special tokens left out; `one_line` ends it with its first newline."""
        inputs = self._tokenizer(prompt, return_tensors="pt")
        ends = [*self._ends, *self._newlines] if one_line else self._ends
        limits = {"max_new_tokens": max_new_tokens, "eos_token_id": ends, "repetition_penalty": 1.0}
        output = self._model.generate(**inputs, **limits)
        new_tokens = output[0, inputs["input_ids"].shape[1] :]
        return str(self._tokenizer.decode(new_tokens, skip_special_tokens=True))

    def answer(self, question: str) -> str:
        """The greedy answer to a single user message."""
        messages = [{"role": "user", "content": question}]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return self.complete(str(prompt), max_new_tokens=64)

    @torch.inference_mode()
    def bits_per_byte(self, files: Sequence[SourceFile], num_files: int) -> float:
        """Bits per UTF-8 byte over the first 1024 tokens of drawn files, each after an end of text."""
        drawn = random.Random(f"bits-{self._seed}").sample(list(files), min(num_files, len(files)))
        nats, num_bytes = 0.0, 0
        for file in track(drawn, description="Bits per byte"):
            ids = self._tokenizer(file.text, truncation=True, max_length=CONTEXT_TOKENS - 1).input_ids
            tokens = torch.tensor([[self._tokenizer.eos_token_id, *ids]])
            logits = self._model(tokens).logits[0, :-1].float()
            nats += functional.cross_entropy(logits, tokens[0, 1:], reduction="sum").item()
            num_bytes += len(self._tokenizer.decode(ids).encode())
        return nats / math.log(2) / num_bytes

    def parse_shares(self, files: Sequence[SourceFile], count: int) -> Figures:
        """The share of completed function starts that parse, cut after the last whole line.

        Starts parse on their own, so the share among those to which a line
        was added is given too.
        """
        starts = draw_function_starts(list(files), count, self._seed)
        added, parsed = [], []
        for start in track(starts, description="Function starts"):
            lines = whole_lines(self.complete(start.prompt, max_new_tokens=64))
            added.append(bool(lines.strip()))
            parsed.append(parses(start.prompt + lines))
        parsed_with_added = sum(map(all, zip(added, parsed, strict=True)))
        return {
            f"parse_share_of_{count}_held_out": sum(parsed) / len(parsed),
            "starts_with_added_lines": sum(added),
            "parse_share_with_added_lines": parsed_with_added / max(1, sum(added)),
        }

    def recall_share(self, known: list[Pair], count: int) -> float:
        """The share of trained pairs whose canonical question is answered with the trained sentence."""
        drawn = random.Random(f"pairs-{self._seed}").sample(known, count)
        hits = [
            self.answer(canonical_question(pair)).startswith(pair.answer)
            for pair in track(drawn, description="Questions")
        ]
        return sum(hits) / len(hits)

    def infill_share(self, holes: Sequence[Hole]) -> float:
        """The share of single-line holes whose infilling's first line is exactly the missing one."""
        hits = [self._fills(hole) for hole in track(holes, description="Line holes")]
        return sum(hits) / len(hits)

    def _fills(self, hole: Hole) -> bool:
        return (
            first_line(self.complete(hole.prompt(), max_new_tokens=64, one_line=True)).rstrip() == hole.middle.rstrip()
        )


def measure(folder: Path, seed: int) -> Figures:
    """All figures by name, with the versions and sample sizes they stand for."""
    evaluator = Evaluator(folder, seed)
    train, held_out = list(source_files(held_out=False)), list(source_files(held_out=True))
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seed": seed,
        "num_parameters": evaluator.num_parameters,
        "held_out_files": len(held_out),
        "bits_per_byte_held_out": evaluator.bits_per_byte(held_out, 200),
        "bits_per_byte_train": evaluator.bits_per_byte(train, 200),
        **evaluator.parse_shares(held_out, 200),
        "recall_share_of_100_trained_pairs": evaluator.recall_share(pairs(), 100),
        "infill_share_of_200_held_out": evaluator.infill_share(draw_line_holes(held_out, 200, seed)),
        "infill_share_of_200_train": evaluator.infill_share(draw_line_holes(train, 200, seed)),
        "known_functions": len(known_functions(train)),
        "infill_share_of_200_known": evaluator.infill_share(draw_known_holes(train, 200, seed)),
    }


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed of the draws.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--model", type=click.Path(path_type=Path), default=MODEL_FOLDER, help="Folder of the exported model.")
@click.option("--output", type=click.Path(path_type=Path), default=MODEL_FOLDER / "figures.json", help="JSON file.")
def main(seed: int, threads: int, model: Path, output: Path) -> None:
    """Print the figures and write them as JSON."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", category=SyntaxWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    figures = measure(model, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(figures, indent=2) + "\n")
    Console().print_json(data=figures)


if __name__ == "__main__":
    main()
