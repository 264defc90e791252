"""Two environments take turns under the same load over HTTP: the ratio of their speeds, with its interval.

Run as ``python -m benchmarks.versions --first .venv-a/bin/python --second .venv-b/bin/python``: does the demo model
answer as fast with another version of transformers? With ``--first-checkout`` also: as with another commit of ours?
Both servers run all the time and one of them is asked at a time; who begins a pair changes from pair to pair. The
interval is a bootstrap of the median of the pairs' ratios.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.progress import track

from benchmarks.contenders import Contender, forklift, running
from benchmarks.load import closed_loop, median
from benchmarks.report import show
from benchmarks.shapes import DEMO, ROOT, prompts

NUM_RESAMPLES = 5000
CONFIDENCE = 0.95
CHECKOUT = click.Path(exists=True, file_okay=False, path_type=Path)
ASK = "from importlib.metadata import version as v; print('transformers', v('transformers'), 'torch', v('torch'))"


def of_environment(python: Path, checkout: Path, folder: Path, batch: int) -> Contender:
    """The Forklift of ``checkout`` with the packages of ``python``'s environment, named by their versions."""
    asked = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True)
    server = forklift(f"{python.parent.parent.name}: {asked.stdout.strip()}", folder, max_batch_size=batch)
    return replace(server, command=(str(python.absolute()), *server.command[1:]), folder=checkout.resolve())


def tokens_per_s(url: str, texts: list[str], num_new: int, concurrency: int) -> float:
    """Speed of one load; every request must have been answered."""
    fields = {"max_tokens": num_new, "temperature": 0, "ignore_eos": True}
    summary = closed_loop(url, [{"prompt": text, **fields} for text in texts], concurrency)
    if failures := summary.errors():
        raise click.ClickException(f"requests failed: {failures}")
    return summary.tokens_per_s


def interval(ratios: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Bounds of the median of ``ratios`` by bootstrap."""
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(ratios, k=len(ratios))) for _ in range(NUM_RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return medians[int(tail * NUM_RESAMPLES)], medians[int((1 - tail) * NUM_RESAMPLES) - 1]


@click.command()
@click.option("--first", type=click.Path(exists=True, path_type=Path), required=True, help="Python to compare with.")
@click.option("--second", type=click.Path(exists=True, path_type=Path), required=True, help="Python to compare.")
@click.option("--first-checkout", type=CHECKOUT, default=ROOT, help="Where the first one's Forklift lies.")
@click.option("--second-checkout", type=CHECKOUT, default=ROOT, help="Where the second one's Forklift lies.")
@click.option("--model", type=click.Path(path_type=Path), default=DEMO, help="Folder to serve.")
@click.option("--pairs", "num_pairs", default=12, help="How often both are measured.")
@click.option("--batch", default=16, help="FORKLIFT_MAX_BATCH_SIZE.")
@click.option("--concurrency", multiple=True, type=int, default=(1, 16), help="Clients.")
@click.option("--requests", "num_requests", default=32, help="Requests per load.")
@click.option("--new", "num_new", default=64)
@click.option("--prompt", "num_prompt", default=130)
def main(
    first: Path,
    second: Path,
    first_checkout: Path,
    second_checkout: Path,
    model: Path,
    num_pairs: int,
    batch: int,
    concurrency: tuple[int, ...],
    num_requests: int,
    num_new: int,
    num_prompt: int,
) -> None:
    """Speed of the second environment as a share of the first one's."""
    servers = [of_environment(*one, model, batch) for one in ((first, first_checkout), (second, second_checkout))]
    rows = []
    with running(servers[0]) as one, running(servers[1]) as other:
        urls = (one, other)
        for clients in concurrency:
            speeds: tuple[list[float], list[float]] = ([], [])
            for url in urls:
                tokens_per_s(url, prompts(num_prompt, num_requests, seed=1), num_new, clients)
            for pair in track(range(num_pairs), description=f"{clients} clients"):
                texts = prompts(num_prompt, num_requests, seed=pair)
                for which in (0, 1) if pair % 2 == 0 else (1, 0):
                    # Other prompts for each pair, the same ones within it: neither finds its own prefixes again.
                    speeds[which].append(tokens_per_s(urls[which], texts, num_new, clients))
            ratios = [later / earlier for earlier, later in zip(*speeds, strict=True)]
            low, high = interval(ratios)
            rows.append(
                {
                    "clients": clients,
                    "first tokens/s": median(speeds[0]),
                    "second tokens/s": median(speeds[1]),
                    "ratio": f"{median(ratios):.3f}",
                    "from": f"{low:.3f}",
                    "to": f"{high:.3f}",
                }
            )
    facts = {"first": servers[0].name, "second": servers[1].name, "pairs": num_pairs, "confidence": CONFIDENCE}
    show("two environments", rows, **facts, num_prompt=num_prompt, num_new=num_new, requests=num_requests)


if __name__ == "__main__":
    main()
