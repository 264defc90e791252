"""Are the values of a checkpoint's configuration of the right type and range? Pure functions, no torch.

transformers checks few of them: a wrong one is met deep in a load, or never, when it names code that a
library then fetches and runs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError

LARGEST = 2**31 - 1
COUNTS = {
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "head_dim", "max_position_embeddings", "d_model"),
    *("n_positions", "n_ctx", "n_embd", "n_layer", "n_head"),
}
# DeBERTa-v3 has none of them.
POSSIBLY_NONE = {"type_vocab_size"}
TOKEN_IDS = {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "decoder_start"}
NUMBERS = {"temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "length_penalty"}
DTYPES = {
    *("auto", "float64", "float32", "float16", "bfloat16", "half", "float"),
    *("float8_e4m3fn", "float8_e5m2"),
}
# Anything else is taken by transformers for the name of a repository whose code it loads (hub kernels).
ATTENTION = {
    *("eager", "sdpa", "flex_attention", "paged|eager", "paged|sdpa"),
    *("flash_attention_2", "flash_attention_3", "flash_attention_4"),
}
EXPERTS = {"eager", "batched_mm", "grouped_mm"}
IMPLEMENTATIONS = {
    "attn_implementation": ATTENTION,
    "_attn_implementation": ATTENTION,
    "_attn_implementation_internal": ATTENTION,
    "experts_implementation": EXPERTS,
    "_experts_implementation": EXPERTS,
    "_experts_implementation_internal": EXPERTS,
}
MAX_SHOWN_CHARS = 60


def check_config(path: Path, config: dict[str, Any]) -> None:
    """Raise ``ModelLoadError`` for the first value of ``config``, read from ``path``, that cannot be meant."""
    for name, value in config.items():
        _check(path, name, value)
        if isinstance(value, dict) and name.endswith("_config"):
            check_config(path, value)
    _check_layer_types(path, config)


def _check_layer_types(path: Path, config: dict[str, Any]) -> None:
    """A kind for each layer: transformers' ``validate_layer_type`` (5.24) asks the same."""
    num_layers = config.get("num_hidden_layers")
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(kinds := config.get(name), list) and num_layers is not None and len(kinds) != num_layers:
            raise ModelLoadError(f"{path}: num_hidden_layers is {num_layers}, but {name} has {len(kinds)} entries")


def _check(path: Path, name: str, value: object) -> None:
    if value is None:
        return
    if name in COUNTS:
        _require(path, name, value, _all_of(value, lambda one: _is_whole(one, 1)), "a whole number above 0")
    elif name in POSSIBLY_NONE:
        _require(path, name, value, _is_whole(value, 0), "a whole number that is not negative")
    elif name.removesuffix("_token_id") in TOKEN_IDS and name.endswith("_token_id"):
        _require(path, name, value, _all_of(value, lambda one: _is_whole(one, -1)), "a token id or a list of them")
    elif name in NUMBERS:
        _require(path, name, value, _is_number(value), "a number that is not negative")
    elif name in ("dtype", "torch_dtype"):
        _require(path, name, value, _is_dtype(value), "a dtype such as bfloat16")
    elif name in IMPLEMENTATIONS:
        known = IMPLEMENTATIONS[name]
        names = list(value.values()) if isinstance(value, dict) else [value]
        is_known = all(one is None or (isinstance(one, str) and one in known) for one in names)
        _require(path, name, value, is_known, f"one of {', '.join(sorted(known))}: code is not fetched for it")
    elif name == "quantization_config":
        _require(path, name, value, isinstance(value, dict), "an object")
    elif name == "model_type":
        _require(path, name, value, isinstance(value, str), "a text")
    elif name == "architectures":
        is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
        _require(path, name, value, is_list, "a list of texts")


def _all_of(value: object, is_right: Any) -> bool:
    return all(map(is_right, value)) if isinstance(value, list) else bool(is_right(value))


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= LARGEST


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]


def _is_dtype(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_dtype, value.values()))
    return isinstance(value, str) and value.removeprefix("torch.") in DTYPES


def _require(path: Path, name: str, value: object, is_right: bool, wanted: str) -> None:
    if not is_right:
        text = repr(value)
        shown = text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."
        raise ModelLoadError(f"{path}: {name} is {shown}, not {wanted}")
