"""A loaded encoder-decoder model as the other packages see it: sources to token ids, limits, how texts are decoded.

Text is read by HTTP threads (see ``ServedModel``); the settings of a generation are made by the inference thread.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

from transformers import GenerationConfig

from app.core.errors import ModelLoadError, UnsupportedParameterError
from app.core.parsing.token_ids import require_token_ids
from app.core.patience import held
from app.core.tasks.encoder_jobs import Cut
from app.core.tasks.seq2seq_jobs import Decoding
from app.models.checkpoint.loader import Checkpoint
from app.models.encoders.languages import NO_INSTRUCTION, Instruction, Languages, told_by
from app.models.served_model import context_size
from app.models.tokens.generating_model import GeneratingModel

# What the decoder begins with is counted in transformers' lengths.
NUM_START_TOKENS = 1
# Told apart from the other settings: what one text may have does not keep it from being decoded with others.
BOUNDS = ("max_length", "max_new_tokens")


class Seq2SeqModel(GeneratingModel):
    """Tokenizer, limits and settings; ``target_tokens`` is the most that a text may have that is made of another."""

    task: Literal["seq2seq"]

    def __init__(self, name: str, checkpoint: Checkpoint, max_context_tokens: int):
        config = checkpoint.model.config
        limit = context_size(config) or max_context_tokens
        source = getattr(config, "max_encoder_position_embeddings", None) or limit
        target = getattr(config, "max_decoder_position_embeddings", None) or limit
        super().__init__(name, checkpoint, min(max_context_tokens, source))
        self.target_tokens = min(max_context_tokens, target) - NUM_START_TOKENS
        self.own = checkpoint.model.generation_config
        # It would be filled in wherever a generation's own settings switch something off.
        checkpoint.model.generation_config = GenerationConfig()
        self.start_id = _start_id(name, self.own)
        params = getattr(config, "task_specific_params", None)
        self._params = {key: value for key, value in (params or {}).items() if isinstance(value, dict)}
        self.languages = Languages(name, self.tokenizer, self._params)
        self._num_source_rows = int(checkpoint.model.get_input_embeddings().weight.shape[0])

    def to_summarize(self) -> Instruction:
        """How to have a text summarized, as far as the config says it."""
        return told_by(self._params.get("summarization", {}))

    def read(self, text: str, given: Instruction = NO_INSTRUCTION, cut: Cut | None = None) -> list[int]:
        """A source as the encoder reads it; without ``cut`` nothing is left out. Raises ``InvalidParameterError``."""
        text = given.prefix + text
        options: dict[str, Any] = {}
        if cut is None:
            self.require_short(text)
        else:
            text = self.shortened(text, cut.side)
            options = {"truncation": True, "max_length": self.context_tokens}
        with held(self._lock):
            if cut is not None:
                self.tokenizer.truncation_side = cut.side
            if given.src_lang is not None:
                self.tokenizer.src_lang = given.src_lang
            ids: list[int] = self.tokenizer(text, verbose=False, **options)["input_ids"]
        return self.checked(ids)

    def checked(self, ids: list[int], param: str = "prompt") -> list[int]:
        require_token_ids(ids, self._num_source_rows, param)
        return ids

    def searches_beams(self, changes: Mapping[str, Any]) -> bool:
        """Whether the checkpoint's settings with ``changes`` search several texts at once."""
        return int(self._setting("num_beams", changes) or 1) > 1

    def decoding(
        self,
        changes: Mapping[str, Any],
        *,
        is_sampled: bool,
        wanted: int | None,
        default: int,
        most: int | None = None,
    ) -> tuple[Decoding, int]:
        """How a text is decoded, and how many tokens it may have.

        ``changes``: what a task and its request set in front of the checkpoint's own settings; ``wanted``: the bound
        that the request names, ``default``: where nobody names one, ``most``: the server's. Raises a ``RequestError``.
        """
        num_beams = 1 if is_sampled else int(self._setting("num_beams", changes) or 1)
        if num_beams > 1 and self._setting("do_sample", changes):
            text = f"num_beams: the settings of the model {self.name} draw beams at random, which is not supported"
            raise UnsupportedParameterError(f"{text}: send 1", param="num_beams")
        bounds = [wanted or self._own_bound(changes) or default, self.target_tokens, most]
        bound = min(one for one in bounds if one is not None)
        depends = num_beams > 1 or self._setting("forced_eos_token_id", changes) is not None
        kept = {name: value for name, value in changes.items() if name not in BOUNDS}
        return Decoding(kept, num_beams, bound if depends else None), bound

    def _setting(self, name: str, changes: Mapping[str, Any]) -> Any:
        return changes[name] if name in changes else getattr(self.own, name, None)

    def _own_bound(self, changes: Mapping[str, Any]) -> int | None:
        """What the task's settings, else the checkpoint's, bound the tokens by."""
        for told in (changes, self.own.to_dict()):
            if isinstance(most := told.get("max_new_tokens"), int):
                return max(most, 1)
            if isinstance(most := told.get("max_length"), int):
                return max(most - NUM_START_TOKENS, 1)
        return None

    def generation_config(self, decoding: Decoding, most_tokens: int) -> GenerationConfig:
        """The checkpoint's settings with the changes of ``decoding``, for texts of at most ``most_tokens``."""
        config = copy.deepcopy(self.own)
        config.update(**decoding.changes)
        config.num_beams, config.num_return_sequences, config.do_sample = decoding.num_beams, 1, False
        config.max_length, config.max_new_tokens = most_tokens + NUM_START_TOKENS, None
        least = config.min_length or 0
        if config.min_new_tokens is not None:
            least = config.min_new_tokens + NUM_START_TOKENS
        config.min_length, config.min_new_tokens = min(least, config.max_length), None
        config.eos_token_id, config.pad_token_id = sorted(self.eos_ids) or None, self.pad_id
        if decoding.num_beams == 1:
            config.early_stopping = config.length_penalty = None
        config.return_dict_in_generate = config.output_scores = config.output_logits = False
        return config


def _start_id(name: str, own: GenerationConfig) -> int:
    """What the decoder begins with. Raises ``ModelLoadError``."""
    for told in (own.decoder_start_token_id, own.bos_token_id):
        if isinstance(told, list):
            told = told[0] if told else None
        if told is not None:
            return int(told)
    raise ModelLoadError(f"the model {name} does not say what its decoder begins with (decoder_start_token_id)")
