"""What every model that writes tokens has beside its tokenizer: its ends, its defaults, tokens to text.

``decode`` is called by the inference thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from app.core.work.sampling_params import SamplingDefaults
from app.models.checkpoint.loader import Checkpoint
from app.models.served_model import ServedModel
from app.models.tokens.vocabulary import Vocabulary, without_unknown

# Before the second match of these CodeGen's tokenizer cuts wherever it cuts at all (CodeGenTokenizer.truncate).
CODEGEN_CUTS = ("^print", "^def")


class GeneratingModel(ServedModel):
    """Ends and defaults of one model that generates."""

    def __init__(self, name: str, checkpoint: Checkpoint, context_tokens: int):
        super().__init__(name, checkpoint, context_tokens)
        self.defaults = sampling_defaults(checkpoint.model.generation_config)
        self.eos_ids = eos_ids(checkpoint.model.generation_config, self.tokenizer)
        self.pad_id = (
            self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self.eos_ids, default=0)
        )
        self._decode = decoder_of(self.tokenizer)
        self.second_cuts = CODEGEN_CUTS if checkpoint.model.config.model_type == "codegen" else ()

    def decode(self, ids: list[int]) -> str:
        """Text of ``ids`` without special tokens, spaces kept as they are. Inference thread."""
        return self._decode(ids)

    def decoder(self, shown: frozenset[int]) -> Callable[[list[int]], str]:
        """What decodes so, but for special tokens that are to be ``shown`` by their names. Inference thread."""
        return decoder_of(self.tokenizer, self.vocabulary, shown) if shown else self._decode


def decoder_of(
    tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary | None = None, shown: frozenset[int] = frozenset()
) -> Callable[[list[int]], str]:
    """What gives the text of ids without special tokens but ``shown`` ones, spaces kept as they are.

    Every token of every stream is decoded twice. transformers' own ``decode`` asks every id what it is: 2.2 us,
    of which its tokenizer takes 0.5. So that one is called by itself, except where a family decodes in its own way.
    """
    kind = type(tokenizer)
    is_plain = kind.decode is PreTrainedTokenizerBase.decode and kind._decode is PreTrainedTokenizerFast._decode
    skips = not shown
    if is_plain:
        whole: Callable[[list[int]], str] = partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=skips)
    else:
        whole = partial(tokenizer.decode, skip_special_tokens=skips, clean_up_tokenization_spaces=False)
    read = whole if tokenizer.is_fast else lambda ids: str(whole(without_unknown(tokenizer, ids)))
    if vocabulary is None or skips:
        return read
    return lambda ids: read([token for token in ids if token in shown or not vocabulary.is_special(token)])


def sampling_defaults(config: GenerationConfig) -> SamplingDefaults:
    """From ``generation_config.json``; greedy where it does not ask for sampling."""
    return SamplingDefaults(
        temperature=float(_or(config.temperature, 1.0)) if config.do_sample else 0.0,
        top_p=float(_or(config.top_p, 1.0)),
        top_k=int(_or(config.top_k, 0)),
        repetition_penalty=float(_or(config.repetition_penalty, 1.0)),
    )


def eos_ids(config: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end a sequence: the generation config's, or else the tokenizer's."""
    named: Any = config.eos_token_id
    if named is None:
        named = tokenizer.eos_token_id
    if named is None:
        return frozenset()
    return frozenset(named) if isinstance(named, list) else frozenset({int(named)})


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
