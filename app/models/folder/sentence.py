"""How a sentence-embedding model makes one vector of its tokens: read from sentence-transformers' files.

``modules.json`` lists the steps: Transformer, Pooling (with a config of its own), and perhaps
Normalize. Steps that we do not have stop the load: leaving one out would give other vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from app.core.errors import ModelLoadError
from app.models.folder.json_files import MAX_CONFIG_BYTES, parse_json, read_bytes

Pooling = Literal["mean", "cls", "lasttoken"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "lasttoken")
Activation = Literal["softmax", "sigmoid", "none"]
ReadJson = Callable[[str], Any]
"""Parsed content of a file of the checkpoint, or None where it has no such file."""

# The files' flags, in the form that every version of sentence-transformers reads.
FLAGS: dict[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}

# How a pair is scored, by the name of a class of torch.
SCORED_BY: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "none"}


@dataclass(frozen=True, slots=True)
class SentenceForm:
    """Steps from token vectors to one; the defaults are sentence-transformers' for a plain encoder.

    ``prompts`` are put before texts by their names, ``default_prompt`` where none is named; ``pools_prompt``: their
    tokens count as the text's do.
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    pools_prompt: bool = True


def read_sentence_form(read: ReadJson) -> SentenceForm | None:
    """What the checkpoint says of its vectors; None where it says nothing. Raises ``ModelLoadError``."""
    modules = read("modules.json")
    if modules is None:
        pooling = read("1_Pooling/config.json")
        return None if pooling is None else SentenceForm(pooling=_pooling(pooling))
    form = SentenceForm()
    for module in modules:
        match str(module["type"]).rpartition(".")[2]:
            case "Transformer":
                pass
            case "Pooling":
                config = read(f"{module['path']}/config.json") or {}
                form = replace(form, pooling=_pooling(config), pools_prompt=config.get("include_prompt") is not False)
            case "Normalize":
                form = replace(form, normalize=True)
            case other:
                raise ModelLoadError(f"modules.json has a {other} step, which is not supported")
    limits = read("sentence_bert_config.json") or {}
    form = _with_prompts(form, read("config_sentence_transformers.json") or {})
    return replace(form, max_tokens=limits.get("max_seq_length"), lowercase=bool(limits.get("do_lower_case")))


def _with_prompts(form: SentenceForm, config: dict[str, Any]) -> SentenceForm:
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelLoadError("config_sentence_transformers.json: prompts is no table of texts")
    if default is not None and default not in prompts:
        raise ModelLoadError("config_sentence_transformers.json: default_prompt_name is none of the prompts")
    return replace(form, prompts=prompts, default_prompt=default)


def _pooling(config: dict[str, Any]) -> Pooling:
    modes = [mode for flag, mode in FLAGS.items() if config.get(flag)]
    named = config.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    for pooling in POOLINGS:
        if modes == [pooling]:
            return pooling
    raise ModelLoadError(f"pooling {' + '.join(modes) or 'of no kind'} is not supported")


def read_pair_activation(read: ReadJson) -> Activation | None:
    """How sentence-transformers' files say that a pair is scored, in the forms of all its versions.

    None where they say nothing. Raises ``ModelLoadError`` for functions that we do not have.
    """
    config, sentence_config = read("config.json") or {}, read("config_sentence_transformers.json") or {}
    own = config.get("sentence_transformers")
    named = sentence_config.get("activation_fn") or (own.get("activation_fn") if isinstance(own, dict) else None)
    named = named or config.get("sbert_ce_default_activation_function")
    if named is None:
        return None
    name = str(named).rpartition(".")[2]
    if name not in SCORED_BY:
        raise ModelLoadError(f"the activation function {str(named)[:100]} is not supported for scores of pairs")
    return SCORED_BY[name]


def parse(path: str | None) -> Any:
    """The JSON in the file at ``path``; None without one. Raises ``ModelLoadError``."""
    if path is None:
        return None
    return parse_json(Path(path), read_bytes(Path(path), MAX_CONFIG_BYTES))
