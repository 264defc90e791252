"""One model type, tried in a process of its own: built tiny, loaded as a server would, compared with ``generate``.

The last line that it prints is what came of it, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import resource
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from app.core.settings import load_settings
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.engine_interface import Engine
from app.engine.loading.build import prepare
from app.engine.loading.prepared import Prepared
from app.models.text_model import TextModel
from tests.tiny_models import spread, tiny_tokenizer
from tests.unit.engine.driver import greedy_reference, random_prompt
from tools.coverage.tiny_configs import tiny_config

MEMORY_BYTES = 8 * 2**30
MOST_PARAMETERS = 100_000_000
ROWS, CHUNK, NUM_NEW = 4, 40, 12
LENGTHS = (1, 3, 17, 33, 65, 90, 110, 40)


def save_tiny(model_type: str, folder: Path) -> str | None:
    """Write a loadable folder; why there is none."""
    torch.manual_seed(0)
    try:
        with torch.device("meta"):
            num_parameters = AutoModelForCausalLM.from_config(tiny_config(model_type)).num_parameters()
        if num_parameters > MOST_PARAMETERS:
            return f"has {num_parameters:,} parameters at the least"
        model = AutoModelForCausalLM.from_config(tiny_config(model_type), dtype=torch.float32)
        spread(model)
        model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=1)
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    except Exception as error:
        return told(error)
    return None


def told(error: BaseException) -> str:
    """An error's kind and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def tried(ready: Prepared, found: dict[str, Any]) -> None:
    """Eight prompts of unlike lengths that join and leave, then two of them again, against ``generate`` one by one."""
    model, engine = ready.model, ready.engine
    assert isinstance(model, TextModel)
    rng = random.Random(0)
    prompts = [random_prompt(rng, length) for length in LENGTHS]
    jobs = [played(engine, prompts, rng), played(engine, [prompts[6], [*prompts[4], 9]], rng)]
    wrong = cached = 0
    for job in [*jobs[0], *jobs[1]]:
        expected = greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)
        wrong += tokens_of(job) != expected
        cached += job.usage.cached_tokens
    found |= {"wrong": wrong, "of": len(jobs[0]) + len(jobs[1]), "cached": cached}


def played(engine: Engine, prompts: list[list[int]], rng: random.Random) -> list[Job]:
    """The jobs of ``prompts``, which come at random steps, once all have ended."""
    params = [SamplingParams(rng.randrange(2, NUM_NEW), ignore_eos=True, num_logprobs=0) for _ in prompts]
    jobs = [Job("probe", prompt, some) for prompt, some in zip(prompts, params, strict=True)]
    to_come = list(jobs)
    while to_come or engine.has_work:
        if to_come and rng.random() < 0.4:
            engine.add(to_come.pop(0))
        engine.step()
    return jobs


def tokens_of(job: Job) -> list[int]:
    """The tokens that a job has told."""
    return [one.token for event in job.next_events(0) for one in getattr(event, "logprobs", ())]


def continuous(folder: Path, found: dict[str, Any]) -> None:
    """What transformers' continuous batching makes of the same prompts."""
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        rng = random.Random(0)
        prompts = [random_prompt(rng, length) for length in LENGTHS]
        config = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=-1, pad_token_id=1)
        pages = ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=256)
        outputs = model.generate_batch(prompts, generation_config=config, continuous_batching_config=pages)
        expected = [
            model.generate(torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()
            for prompt in prompts
        ]
        answers = {tuple(one.prompt_ids): list(one.generated_tokens) for one in outputs.values()}
        wrong = sum(answers.get(tuple(p)) != e for p, e in zip(prompts, expected, strict=True))
        found["continuous"] = f"{wrong} of {len(prompts)} differ" if wrong else "equal"
    except Exception as error:
        found["continuous"] = told(error)


def main(model_type: str, folder: Path) -> None:
    """Print what came of it, after each stage, so that a process that dies has told how far it came."""
    found: dict[str, Any] = {"type": model_type, "stage": "build"}
    if (why := save_tiny(model_type, folder)) is not None:
        print(json.dumps(found | {"why": why}), flush=True)
        return
    found["stage"] = "load"
    print(json.dumps(found), flush=True)
    environ = {"FORKLIFT_MODEL": str(folder), "FORKLIFT_DTYPE": "float32", "FORKLIFT_MAX_BATCH_SIZE": str(ROWS)}
    environ |= {"FORKLIFT_PREFILL_CHUNK_TOKENS": str(CHUNK), "FORKLIFT_COMPILE": "never"}
    try:
        ready = prepare(load_settings(environ), lambda _: None)
        found |= {"engine": ready.engine_name, "stage": "run"}
        print(json.dumps(found), flush=True)
        tried(ready, found)
        found["stage"] = "done"
    except Exception as error:
        found["why"] = told(error)
    print(json.dumps(found), flush=True)
    continuous(folder, found)
    print(json.dumps(found), flush=True)


def probe_apart(model_type: str, folder: Path, told: Path) -> None:
    """``main`` in a process of its own: bounded in memory, on one thread, and what it prints goes to ``told``."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    torch.set_num_threads(1)
    output = os.open(told, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    main(model_type, folder)
