"""A server with several models, and what each of them answers when it is asked alone, through transformers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter
from tests.several import write_models_file

PROMPTS = ("def f(", "import os\n", "class A:\n    def b(self):", "x = 1\ny =")
MASKED = ("the [MASK] sat", "a [MASK] of [MASK] things")
NUM_NEW = 24


class Several(Forklift):
    """``load`` says how many times each model was loaded, ``rss`` what its one worker holds."""

    def complete(self, model: str, prompt: str = PROMPTS[0], num_new: int = NUM_NEW, **options: Any) -> Any:
        body = {"prompt": prompt, "max_new_tokens": num_new, "temperature": 0, "model": model}
        return self.post("/complete", json=body, **options)

    def state(self, model: str) -> str:
        found: str = self.get(f"/v1/models/{model}")[1]["state"]
        return found

    def num_loads(self, model: str) -> int:
        return sum(line["model"] == model for line in self.log_lines("model_loaded"))

    def memory_bytes(self) -> int:
        """Resident memory of the one worker."""
        return int(psutil.Process(self.rows()[0]["pid"]).memory_info().rss)


def start_several(folder: Path, tables: dict[str, dict[str, object]], **settings: object) -> Iterator[Several]:
    """A started server; it is stopped when the iterator goes on."""
    starter = server_starter(folder, Several)
    file = write_models_file(folder / "models.toml", tables)
    yield next(starter)(models=file, **settings)
    next(starter, None)


@functools.cache
def greedy_text(folder: Path, prompt: str, num_new: int = NUM_NEW) -> str:
    """What ``generate`` makes of the prompt."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=num_new)
    text: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


@functools.cache
def filled_tokens(folder: Path, text: str) -> object:
    """The tokens that transformers' pipeline proposes, best first."""
    from transformers import pipeline

    return tokens_of(pipeline("fill-mask", model=str(folder), top_k=3)(text))


def tokens_of(answer: Any) -> object:
    """The tokens of a fill-mask answer, whatever its nesting."""
    return answer["token"] if isinstance(answer, dict) else [tokens_of(one) for one in answer]
