"""The model folders: complete, readable, with a tokenizer, and small enough; nothing is loaded but headers.

Imports torch and transformers when it runs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from app.cli.checking.findings import Finding, Findings, Situation, counted, gib
from app.core.errors import StartError
from app.core.settings import ModelPlan, Settings
from app.serve.processes.gpus import gpu_memory_bytes, plan_slots

# A worker's own memory beside weights and cache: 356 MB with the demo model of 25 MB (torch 2.13, CPU; USS).
WORKER_BYTES = 400 * 2**20
COMPLETE = "copy the model folder again, whole, as safetensors"


def check(situation: Situation) -> Findings:
    """Each model by itself, then the memory of all."""
    footprints = []
    for plan in situation.settings.plans:
        faults = list(check_files(plan))
        yield from faults
        if not faults:
            footprint = yield from _check_content(plan)
            footprints.append((plan, footprint))
    if len(footprints) == len(situation.settings.plans) and all(one for _, one in footprints):
        yield from check_memory(situation, footprints)


def check_files(plan: ModelPlan) -> Findings:
    """What is missing, cut short or of the wrong kind; silent where all is there."""
    from app.models.folder.gguf.gguf_folder import gguf_file
    from app.models.folder.model_folder import check_folder
    from app.models.folder.weights_fit import check_weights_fit

    source = plan.settings.model
    try:
        check_folder(source)
    except StartError as error:
        yield Finding("model", "fault", str(error), COMPLETE)
        return
    if not Path(source).exists() or gguf_file(source) is not None:
        return
    try:
        config = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield Finding("model", "fault", f"{source}/config.json cannot be read: {error}", COMPLETE)
        return
    if not isinstance(config, dict) or not config.get("model_type", config.get("auto_map")):
        yield Finding("model", "fault", f"{source}/config.json names no model_type", COMPLETE)
        return
    try:
        check_weights_fit(Path(source), config)
    except StartError as error:
        yield Finding("model", "fault", str(error), COMPLETE)


def _check_content(plan: ModelPlan) -> Any:
    """Task and tokenizer; returns the memory that the model will take, where that can be told."""
    from app.models.forecast import inspect

    source = plan.settings.model
    if not Path(source).exists():
        text = f"{source} is no folder; as a hub id it cannot be checked before it is loaded"
        yield Finding("model", "warning", text, "set FORKLIFT_MODEL to a folder")
        return None
    try:
        found = inspect(plan)
    except StartError as error:
        yield Finding("model", "fault", str(error), "see docs/models.md")
        return None
    yield Finding("model", "ok", f"{source}: {found.task}, {_files(plan.settings)}")
    yield from check_tokenizer(plan, found.task)
    return found.footprint


def _files(settings: Settings) -> str:
    """What its weights lie in."""
    from app.models.checkpoint.gguf_loading.gguf_form import kinds_of_layers
    from app.models.checkpoint.prequantized.served_form import find_coded
    from app.models.folder.gguf.gguf_folder import gguf_file
    from app.models.folder.gguf.gguf_header import read_header

    file = gguf_file(settings.model)
    if file is None:
        coded = find_coded(settings)
        return "all files are there and whole" + ("" if coded is None else f" ({coded.words})")
    header = read_header(file)
    kinds = ", ".join(kind for kind, _ in kinds_of_layers(header).most_common())
    return f"a whole GGUF file ({header.architecture}; layers in {kinds})"


def check_tokenizer(plan: ModelPlan, task: str) -> Findings:
    """Whether it loads and knows text; for a language model, whether it can chat and fill holes."""
    from app.models.checkpoint.loader import check_tokenizer as require_words
    from app.models.checkpoint.loader import read_tokenizer
    from app.models.checkpoint.source import find_source, first_line

    settings = plan.settings
    try:
        source = find_source(settings, plan.task)
        tokenizer = read_tokenizer(source)
        require_words(settings.model, tokenizer)
    except Exception as error:
        advice = "copy the tokenizer's files beside the weights (tokenizer.json, or its family's)"
        yield Finding("tokenizer", "fault", first_line(error), advice)
        return
    abilities = [_chat(tokenizer, settings, source.config), _infill(tokenizer)] if task == "generate" else []
    yield Finding("tokenizer", "ok", ", ".join([f"{len(tokenizer)} tokens", *abilities]))


def _chat(tokenizer: Any, settings: Settings, config: Any) -> str:
    from app.models.tokens.chat_prompts import has_rounds

    if tokenizer.chat_template or settings.chat_template:
        return "has a chat template"
    return "chats in rounds" if has_rounds(config) else "no chat template"


def _infill(tokenizer: Any) -> str:
    from app.models.tokens.infill import Infilling

    return "fills holes" if Infilling.of(tokenizer) else "no infilling format"


def check_memory(situation: Situation, footprints: list[tuple[ModelPlan, Any]]) -> Findings:
    """Weights and full KV caches of all workers against what is free now."""
    slots = plan_slots(situation.settings, situation.environ)
    labels = sorted({label for slot in slots for label in slot})
    if not labels or situation.settings.device == "cpu":
        yield _compare("memory", needed_bytes(footprints, len(slots)), _free_bytes(), len(slots))
        return
    weights = sum(one.num_bytes for _, one in footprints)
    for label, (used, total) in gpu_memory_bytes(labels).items():
        num_workers = sum(label in slot for slot in slots)
        share = weights * num_workers / situation.settings.gpus_per_worker
        yield _compare(f"memory of GPU {label}", math.ceil(share), total - used, num_workers)


def needed_bytes(footprints: list[tuple[ModelPlan, Any]], num_workers: int) -> int:
    """On the CPU. Weights that are mapped from files are shared by all workers, unless each lays them out for itself.

    KV caches are never shared.

    Of models that are loaded on demand, the largest counts: the others make room for it.
    """
    resident = [pair for pair in footprints if pair[0].load == "resident"]
    on_demand = [pair for pair in footprints if pair[0].load != "resident"]
    counted = resident + sorted(on_demand, key=lambda pair: int(pair[1].num_bytes))[-1:]
    shared = sum(one.weight_bytes for plan, one in counted if is_shared(plan, one))
    own = sum(one.kv_bytes + (0 if is_shared(plan, one) else one.weight_bytes) for plan, one in counted)
    return int(shared + num_workers * (own + WORKER_BYTES))


def is_shared(plan: ModelPlan, footprint: Any) -> bool:
    """Whether workers share the weights' pages: PACK_WEIGHTS=always gives each some of its own."""
    return bool(footprint.is_mapped) and plan.settings.pack_weights != "always"


def _free_bytes() -> int:
    import torch

    from app.models.checkpoint.device_memory import free_bytes

    return free_bytes(torch.device("cpu"))


def _compare(check: str, needed: int, free: int, num_workers: int) -> Finding:
    workers = counted(num_workers, "worker")
    text = f"{gib(needed)} needed for weights and full KV cache of {workers}, {gib(free)} free"
    if needed <= free:
        return Finding(check, "ok", text)
    advice = "lower FORKLIFT_MAX_BATCH_SIZE, FORKLIFT_MAX_CONTEXT_TOKENS or FORKLIFT_WORKERS, or quantise"
    return Finding(check, "fault", text, advice)
