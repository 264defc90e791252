"""A loaded encoder as the other packages see it: masks to be filled, or vectors to be made.

Text is made and read by HTTP threads (see ``ServedModel``); the forward pass is the engine's.
"""

from __future__ import annotations

from typing import Any, Literal

from transformers import PreTrainedModel

from app.core.encoder_jobs import Encoded
from app.core.errors import InvalidParameterError
from app.core.patience import held
from app.models.checkpoint.loader import Checkpoint
from app.models.folder.sentence import SentenceForm
from app.models.served_model import ServedModel, context_size

# Tokenizers that know no limit say 1e30.
MAX_SANE_TOKENS = 10**9


class EncoderModel(ServedModel):
    """Tokenizer and limits of one encoder; ``form`` is how its vectors are made."""

    task: Literal["fill-mask", "embeddings"]

    def __init__(self, name: str, checkpoint: Checkpoint, max_context_tokens: int):
        super().__init__(name, checkpoint, min([max_context_tokens, *_limits(checkpoint)]))
        self.form = checkpoint.form or SentenceForm()
        self.num_dimensions = int(checkpoint.model.config.get_text_config().hidden_size)
        self.mask_id: int | None = self.tokenizer.mask_token_id
        self.mask_token: str | None = self.tokenizer.mask_token
        self.pad_id: int = self.tokenizer.pad_token_id or 0

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        shown = text.lower() if self.form.lowercase else text
        return super().encode(shown, add_special_tokens=add_special_tokens)

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
