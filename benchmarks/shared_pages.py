"""Memory of 1, 2 and 4 workers on the CPU: weights in the checkpoint's own dtype are shared, others are not.

Run as ``python -m benchmarks.shared_pages``. Figures are proportional set sizes (PSS: a page that
n processes share counts 1/n in each), from /proc/PID/smaps, after every worker has loaded, checked
and warmed up its model, which reads every weight.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import click
from rich.progress import track

from benchmarks.contenders import forklift, running
from benchmarks.report import show
from benchmarks.shapes import model_folder

MIB = 2**20


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="Folder to serve; without it random weights are made.")
@click.option("--workers", multiple=True, type=int, default=(1, 2, 4))
@click.option("--dtype", "dtypes", multiple=True, default=("auto", "bfloat16"))
def main(model: Path | None, workers: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
    """Sum of PSS over the workers of a server."""
    folder = model or model_folder("qwen2-55m")
    runs = [(dtype, count) for dtype in dtypes for count in workers]
    rows = [measure(folder, dtype, count) for dtype, count in track(runs, description="servers")]
    file_mib = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / MIB
    show(f"workers on weights of {file_mib:.0f} MiB", rows, model=folder.name, file_mib=file_mib)


def measure(folder: Path, dtype: str, num_workers: int) -> dict[str, Any]:
    """Start a server and add up its workers; packed copies of bfloat16 weights are left out of the comparison."""
    server = forklift("shared pages", folder, workers=num_workers, dtype=dtype, device="cpu", pack_weights="never")
    with running(server) as url:
        pids = ready_workers(url, num_workers)
        totals = [pss_bytes(pid) for pid in pids]
    all_bytes, weight_bytes = (sum(column) for column in zip(*totals, strict=True))
    return {
        "dtype": dtype,
        "workers": num_workers,
        "pss_sum_mib": all_bytes / MIB,
        "of_it_weights_file_mib": weight_bytes / MIB,
        "per_worker_mib": all_bytes / MIB / num_workers,
    }


def ready_workers(url: str, num_workers: int) -> list[int]:
    """Pids once that many are ready."""
    while True:
        with urllib.request.urlopen(url + "/readyz", timeout=10) as response:
            slots = json.load(response)["slots"]
        if sum(slot["state"] == "ready" for slot in slots) == num_workers:
            return [slot["pid"] for slot in slots]
        time.sleep(0.2)


def pss_bytes(pid: int) -> tuple[int, int]:
    """PSS of a process, and that of the safetensors files mapped in it."""
    total = weights = 0
    is_weights = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_weights = line.endswith(".safetensors")
        elif line.startswith("Pss:"):
            size = int(line.split()[1]) * 1024
            total += size
            weights += size * is_weights
    return total, weights


if __name__ == "__main__":
    main()
