"""Prepares the training data: tokenizer, packed token rows and the question pairs.

Reads the running interpreter's standard library and writes to `build/demo_model`.
The mixture for further training keeps the tokenizer of the model that it is for.
Run it as `python -m tools.demo_model.prepare`.
"""

import json
import platform
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tools.demo_model.corpus import SourceFile, source_files
from tools.demo_model.packing import RowPacker, TokenizedSample
from tools.demo_model.paths import BUILD_FOLDER
from tools.demo_model.questions import Pair, canonical_question, pairs
from tools.demo_model.samples import MIXTURES, Sample, code_pool, rounds
from tools.demo_model.tokenizer import MAX_LENGTH_TOKENS, train_tokenizer


def tokenizer_texts(files: list[SourceFile], questions: list[Pair]) -> Iterator[str]:
    yield from (file.text for file in files if file.weight >= 1)
    for pair in questions:
        yield from (canonical_question(pair), pair.answer) * 2


def tokenizer_for(folder: Path | None, files: list[SourceFile], questions: list[Pair]) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`, or a new one."""
    if folder is None:
        return train_tokenizer(tokenizer_texts(files, questions))
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder)
    return loaded


def tokenize(tokenizer: Tokenizer, samples: list[Sample], max_tokens: int) -> list[TokenizedSample]:
    """Token ids and weights; segments are tokenized apart, as special tokens separate them."""
    segments = [segment for sample in samples for segment in sample]
    encodings = iter(tokenizer.encode_batch([segment.text for segment in segments], add_special_tokens=False))
    tokenized = []
    for sample in samples:
        ids: list[int] = []
        weights: list[int] = []
        for segment in sample:
            segment_ids = next(encodings).ids
            ids += segment_ids
            weights += [segment.weight] * len(segment_ids)
        tokenized.append(TokenizedSample(ids[:max_tokens], weights[:max_tokens]))
    return tokenized


@click.command()
@click.option("--seed", default=0, show_default=True, help="Seed of the drawing and the order of samples.")
@click.option("--rounds", "num_rounds", default=18, show_default=True, help="Rounds of the mixture.")
@click.option("--mixture", type=click.Choice(list(MIXTURES)), default="base", show_default=True, help="What is drawn.")
@click.option("--length", default=MAX_LENGTH_TOKENS, show_default=True, help="Tokens of a row.")
@click.option(
    "--tokenizer", type=click.Path(path_type=Path), help="Folder of a tokenizer to keep; else one is trained."
)
@click.option("--folder", type=click.Path(path_type=Path), default=BUILD_FOLDER, help="Where to write.")
def main(seed: int, num_rounds: int, mixture: str, length: int, tokenizer: Path | None, folder: Path) -> None:
    """Write tokenizer, rows.npz and pairs.json."""
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    files, questions = list(source_files(held_out=False)), pairs()
    size = f"{len(files)} files, {sum(len(file.text) for file in files):,} characters, {len(questions)} pairs"
    console.print(f"Python {platform.python_version()}: {size}")
    chosen = tokenizer_for(tokenizer, files, questions)
    chosen.save_pretrained(folder / "tokenizer")
    (folder / "pairs.json").write_text(json.dumps([vars(pair) for pair in questions], indent=0))
    packer = RowPacker(length)
    drawn = rounds(MIXTURES[mixture], code_pool(files), questions, seed, num_rounds)
    for samples in track(drawn, total=num_rounds, description="Tokenizing", console=console):
        packer.add_round(tokenize(chosen.backend_tokenizer, samples, length))
    rows = packer.arrays()
    np.savez(folder / "rows.npz", allow_pickle=False, **rows)
    used = float((rows["segments"] > 0).mean())
    console.print(f"{rows['tokens'].size:,} tokens in {len(rows['tokens']):,} rows, {used:.1%} used")


if __name__ == "__main__":
    main()
