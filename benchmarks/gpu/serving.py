"""Servers over HTTP: one stream and many, the first token of a long prompt, memory while the model is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil

from app.serve.processes.gpus import gpu_memory_bytes
from benchmarks.contenders import Contender, plain_flask, running, transformers_serve
from benchmarks.contenders import forklift as forklift_server
from benchmarks.gpu.engine import NUM_PROMPT, environ
from benchmarks.gpu.shapes import SHAPES
from benchmarks.load import Summary, closed_loop
from benchmarks.shapes import prompts


def forklift(shape: str, folder: Path, device: str) -> Contender:
    streams = SHAPES[shape].streams
    # On a CPU a compiler would work beside what is measured.
    fields = {"max_batch_size": streams, "http_threads": 2 * streams + 8}
    given = environ(shape, folder, device, compile="auto" if device == "cuda" else "never", **fields)
    settings = {name.removeprefix("FORKLIFT_").lower(): value for name, value in given.items()}
    return forklift_server("forklift", folder, **settings)


def transformers(shape: str, folder: Path, device: str) -> Contender:
    flags = ["--continuous-batching", "--device", device]
    if device == "cpu":
        flags += ["--cb-max-memory-percent", "0.02"]  # else its cache takes most of the machine's memory
    return transformers_serve("transformers serve CB", folder, *flags)


def flask(shape: str, folder: Path, device: str) -> Contender:
    return plain_flask("plain flask", folder, device)


CONTENDERS = {"forklift": forklift, "transformers": transformers, "flask": flask}


def measure(name: str, shape: str, folder: Path, device: str) -> dict[str, Any]:
    """Start the contender, warm it up, and put the loads on it that it can take."""
    contender, sizes = CONTENDERS[name](shape, folder, device), SHAPES[shape]
    texts = prompts(NUM_PROMPT, sizes.streams + 4, seed=1)
    with running(contender) as url:
        load(contender, url, texts[:1], sizes.num_new, 1)
        figures = {
            "memory_gib": memory_bytes(device) / 2**30,
            "one": load(contender, url, texts[1:3], sizes.num_new, 1),
        }
        if contender.can_stream:
            figures["many"] = load(contender, url, texts[4:], sizes.num_new, sizes.streams)
            if sizes.long_prompt + 8 < sizes.served_context:
                figures["long"] = load(contender, url, prompts(sizes.long_prompt, 4, seed=2), 8, 1)
    if failed := [load for load, found in figures.items() if isinstance(found, dict) and found["failed"]]:
        raise SystemExit(f"requests failed: {', '.join(failed)}: {figures}")
    return {"streams": sizes.streams, **figures}


def load(contender: Contender, url: str, texts: list[str], num_new: int, clients: int) -> dict[str, float | None]:
    fields = {"max_tokens": num_new, "stream": contender.can_stream, **contender.extra_fields}
    summary: Summary = closed_loop(url, [{"prompt": text, **fields} for text in texts], clients)
    return summary.as_dict()


def memory_bytes(device: str) -> int:
    """Memory in use on the first visible GPU, by the driver; on a CPU, of the server's processes."""
    if device == "cuda":
        label = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return gpu_memory_bytes([label])[label][0]
    return sum(child.memory_info().rss for child in psutil.Process().children(recursive=True))
