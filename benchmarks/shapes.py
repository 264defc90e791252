"""Random models of known shapes, and prompts for them. Written once under build/benchmarks."""

from __future__ import annotations

import json
import random
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "benchmarks"
DEMO = ROOT / "app" / "models" / "demo"
# name: (vocabulary, hidden, intermediate, layers, heads, key-value heads, dtype)
SHAPES = {
    "qwen2-6.8m": (8192, 256, 704, 6, 8, 2, "float32"),
    "qwen2-55m": (8192, 768, 2048, 8, 12, 2, "float32"),
    "qwen2-0.5b": (151_936, 896, 4864, 24, 14, 2, "bfloat16"),
}


def model_folder(shape: str) -> Path:
    """A loadable folder with random weights of ``shape``; its generation config names no end token."""
    folder = FOLDER / shape
    if not (folder / "model.safetensors").exists():
        _write(shape, folder)
    return folder


def _write(shape: str, folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    vocab, hidden, intermediate, layers, heads, kv_heads, dtype = SHAPES[shape]
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config).to(getattr(torch, dtype))
    model.generation_config = GenerationConfig(pad_token_id=0)
    folder.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(DEMO).save_pretrained(folder)
    model.save_pretrained(folder)


def prompts(num_tokens: int, count: int, seed: int = 0, folder: Path = DEMO) -> list[str]:
    """``count`` prompts of about ``num_tokens`` tokens of the model in ``folder``; no two share a beginning."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(seed)
    words = [word for word in json.loads(_words()) if word.isascii()]
    texts: list[str] = []
    while len(texts) < count:
        text = f"{rng.randrange(10**9)} " + " ".join(rng.choices(words, k=num_tokens))
        ids = tokenizer(text)["input_ids"][:num_tokens]
        texts.append(tokenizer.decode(ids))
    return texts


def _words() -> str:
    import keyword
    import string

    return json.dumps([*keyword.kwlist, *dir(str), *dir(string), *dir(Path)])
