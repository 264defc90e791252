"""What transformers itself answers: the families' answers are compared with it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


@cache
def load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model in float32 and tokenizer, as a notebook loads them."""
    options = {"trust_remote_code": True, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    return model.eval(), AutoTokenizer.from_pretrained(folder, **options)


def greedy(folder: Path, prompt: list[int], num_new: int, **options: Any) -> list[int]:
    """New tokens of ``generate(do_sample=False)``, the end token included where it came."""
    model, _ = load(folder)
    ids = torch.tensor([prompt])
    sampling_off = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "repetition_penalty": 1.0}
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_new, **sampling_off, **options)
    return output[0, len(prompt) :].tolist()


def text(folder: Path, tokens: list[int]) -> str:
    """``decode`` as the source documents call it: no special tokens, spaces as they are."""
    _, tokenizer = load(folder)
    return tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
