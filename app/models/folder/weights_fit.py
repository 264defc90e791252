"""Can the weights be those of the config? Compares names and shapes in their headers with it. No torch; master.

Says nothing where it is not certain: only families whose layout is plain are looked at, and the inference
thread sees, once the model is built, what else is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.models.folder.headers import Entry, read_entries
from app.models.folder.json_files import MAX_TOKENIZER_BYTES, read_object
from app.models.folder.model_folder import INDEX, weight_files

# How a family's weights number their layers, whatever stands before and behind.
LAYER_LISTS = {
    "h": ("gpt2", "gptj", "gpt_neo", "codegen", "gpt_bigcode", "bloom", "falcon"),
    "layer": ("bert", "roberta", "camembert", "xlm-roberta", "electra", "distilbert", "mpnet"),
    "layers": (
        *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "phi", "phi3"),
        *("gemma", "gemma2", "gemma3_text", "starcoder2", "stablelm", "gpt_neox", "olmo", "olmo2", "granite"),
        *("cohere", "cohere2", "glm", "glm4", "xglm", "opt", "modernbert"),
    ),
}
LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
NUM_LISTED = 3


def check_weights_fit(folder: Path, config: dict[str, Any]) -> None:
    """Raise ``ModelLoadError`` where the weights lack layers or have an embedding of another size."""
    whole = folder / "model.safetensors"
    entries: dict[str, Entry] = {}
    for path in [whole] if whole.exists() else weight_files(folder):
        entries |= read_entries(path)
    _check_index(folder, entries)
    name = next((name for name, families in LAYER_LISTS.items() if config.get("model_type") in families), None)
    if name is None or config.get("auto_map") or config.get("quantization_config"):
        return
    _check_layers(folder, config, name, entries)
    _check_embedding(folder, config, entries)


def _check_index(folder: Path, entries: dict[str, Entry]) -> None:
    if (folder / "model.safetensors").exists() or not (folder / INDEX).exists():
        return
    told = read_object(folder / INDEX, MAX_TOKENIZER_BYTES)["weight_map"]
    if missing := [name for name in told if name not in entries]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelLoadError(f"the weight files of {folder} lack what their index names: {missing[0]}{more}")


def _check_layers(folder: Path, config: dict[str, Any], name: str, weights: Iterable[str]) -> None:
    wanted = next((config[count] for count in LAYER_COUNTS if type(config.get(count)) is int), 0)
    pattern = re.compile(rf"(?:^|\.){name}\.(\d{{1,6}})\.")
    found = {int(match[1]) for match in map(pattern.search, weights) if match}
    if not found:
        raise _unlike(folder, f"they have no layers as a {config['model_type']} model has them ({name}.0, ...)")
    if missing := sorted(set(range(wanted)) - found):
        listed = ", ".join(map(str, missing[:NUM_LISTED])) + (", ..." if len(missing) > NUM_LISTED else "")
        raise _unlike(folder, f"of its {wanted} layers they lack {len(missing)}: {listed}")


def _check_embedding(folder: Path, config: dict[str, Any], entries: dict[str, Entry]) -> None:
    wanted = [config.get("vocab_size")]
    if not config.get("embedding_size") and not config.get("word_embed_proj_dim"):
        wanted.append(config.get("hidden_size", config.get("n_embd")))
    for name, entry in entries.items():
        if name.endswith(EMBEDDINGS) and len(shape := entry["shape"]) == 2:
            for size, told, key in zip(shape, wanted, ("vocab_size", "the hidden size"), strict=False):
                if type(told) is int and size != told:
                    raise _unlike(folder, f"{name} is {shape[0]} x {shape[1]}, {key} is {told}")


def _unlike(folder: Path, what: str) -> ModelLoadError:
    return ModelLoadError(f"the weights of {folder} do not fit its config: {what}")
