"""A loaded encoder as the other packages see it: texts and pairs to token ids, and limits.

Text is made and read by HTTP threads (see ``ServedModel``); the forward pass is the engine's.
"""

from __future__ import annotations

from typing import Any, Literal

from transformers import PreTrainedModel

from app.core.errors import InvalidParameterError
from app.core.patience import held
from app.core.tasks.encoder_jobs import Encoded, EncoderInput
from app.models.checkpoint.loader import Checkpoint
from app.models.encoders.labels import read_labels
from app.models.folder.sentence import SentenceForm
from app.models.served_model import ServedModel, context_size

Side = Literal["left", "right"]
# Tokenizers that know no limit say 1e30.
MAX_SANE_TOKENS = 10**9


class EncoderModel(ServedModel):
    """Tokenizer and limits of one encoder; ``form`` is how its vectors are made."""

    task: Literal["fill-mask", "embeddings", "classify", "rerank", "zero-shot", "entities", "answer"]

    def __init__(self, name: str, checkpoint: Checkpoint, max_context_tokens: int):
        super().__init__(name, checkpoint, min([max_context_tokens, *_limits(checkpoint)]))
        self.form = checkpoint.form or SentenceForm()
        self.num_dimensions = int(checkpoint.model.config.get_text_config().hidden_size)
        self.mask_id: int | None = self.tokenizer.mask_token_id
        self.mask_token: str | None = self.tokenizer.mask_token
        self.pad_id = _pad_id(checkpoint)
        self.labels = read_labels(checkpoint)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return super().encode(self._shown(text), add_special_tokens=add_special_tokens)

    def read(
        self, text: str, other: str | None = None, *, cut: Side | None = None, most_tokens: int | None = None
    ) -> EncoderInput:
        """A text, or a pair of texts, as the model reads it.

        ``cut``: what does not fit ``most_tokens`` (default: the context) is left out on that side, of the longer text
        of a pair first; without it nothing is, and the caller sees to what is too long.
        """
        texts = [self._shown(one) for one in (text, other) if one is not None]
        options: dict[str, Any] = {}
        if cut is None:
            self.require_short(*texts)
        else:
            texts = [self.shortened(one, cut) for one in texts]
            bound = min(self.context_tokens, most_tokens or self.context_tokens)
            options = {"truncation": True, "max_length": bound}
        with held(self._lock):
            if cut is not None:
                self.tokenizer.truncation_side = cut
            found = self.tokenizer(*texts, verbose=False, **options)
        types = found.get("token_type_ids") or []
        return EncoderInput(self.checked(found["input_ids"]), types if any(types) else [])

    def cut_text(self, text: str, most_tokens: int) -> str:
        """The beginning of a text, as far as its first ``most_tokens`` tokens reach."""
        shown = self.shortened(self._shown(text), "right")
        with held(self._lock):
            has_spans = self.tokenizer.is_fast
            found = self.tokenizer(shown, add_special_tokens=False, return_offsets_mapping=has_spans, verbose=False)
            ids = found["input_ids"]
            if len(ids) <= most_tokens:
                return shown
            if has_spans:
                return shown[: found["offset_mapping"][most_tokens - 1][1]]
            return str(self.tokenizer.decode(ids[:most_tokens], clean_up_tokenization_spaces=False))

    def _shown(self, text: str) -> str:
        return text.lower() if self.form.lowercase else text

    def encode_masked(self, text: str) -> list[int]:
        """Token ids of a text with masks. Raises ``InvalidParameterError`` where it has none."""
        ids = self.encode(text)
        if self.num_masks(ids) == 0:
            raise InvalidParameterError(f"text: has no mask token, {self.mask_token}", param="text")
        return ids

    def num_masks(self, ids: list[int]) -> int:
        """How many of the tokens are masks."""
        return sum(token == self.mask_id for token in ids)

    def filled(self, ids: list[int], encoded: Encoded) -> list[Any]:
        """What transformers' fill-mask pipeline answers: proposals for one mask, or a list of them per mask.

        With several masks a sequence shows the other ones, so its special tokens stay.
        """
        places = [at for at, token in enumerate(ids) if token == self.mask_id]
        with held(self._lock):
            rows = [
                [self._proposal(ids, at, token, score, is_single=len(places) == 1) for token, score in best]
                for at, best in zip(places, encoded.masks, strict=True)
            ]
        return rows[0] if len(rows) == 1 else rows

    def _proposal(self, ids: list[int], at: int, token: int, score: float, *, is_single: bool) -> dict[str, object]:
        sequence = [*ids[:at], token, *ids[at + 1 :]]
        shown = [one for one in sequence if one != self.tokenizer.pad_token_id]
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            "sequence": self.tokenizer.decode(shown, skip_special_tokens=is_single),
        }


def _pad_id(checkpoint: Checkpoint) -> int:
    """The config's, by which some heads find where a text ends; else the tokenizer's."""
    named = checkpoint.model.config.get_text_config().pad_token_id
    is_usable = isinstance(named, int) and 0 <= named < checkpoint.vocab_size
    return named if is_usable else checkpoint.tokenizer.pad_token_id or 0


def _limits(checkpoint: Checkpoint) -> list[int]:
    """Every bound on the number of tokens that the checkpoint knows."""
    named = [_num_positions(checkpoint.model), checkpoint.tokenizer.model_max_length]
    if checkpoint.form is not None:
        named.append(checkpoint.form.max_tokens)
    return [limit for limit in named if limit is not None and 0 < limit < MAX_SANE_TOKENS]


def _num_positions(model: PreTrainedModel) -> int | None:
    """RoBERTa and its kin count positions from behind the padding index, so that many are never used."""
    size = context_size(model.config)
    embeddings = getattr(model.base_model, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    unused = getattr(positions, "padding_idx", None)
    return size if size is None or unused is None else size - unused - 1
