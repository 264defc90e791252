"""A loaded encoder as the other packages see it: texts and pairs to token ids, and limits.

Text is made and read by HTTP threads (see ``ServedModel``); the forward pass is the engine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

from transformers import PreTrainedModel

from app.core.errors import InvalidParameterError, ModelLoadError
from app.core.patience import held
from app.core.tasks.encoder_jobs import Cut, Encoded, EncoderInput, Side, Table
from app.models.checkpoint.loader import Checkpoint
from app.models.encoders.entities import Entity, EntityFinder, Strategy, without_overlaps
from app.models.encoders.labels import read_labels
from app.models.encoders.spans import Span, SpanFinder
from app.models.folder.sentence import SentenceForm
from app.models.served_model import ServedModel, context_size

# Of one text; each is a pass of its own.
MAX_WINDOWS = 256
PAIRS_AT_ONCE = 16
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
        if self.task == "answer" and not self.tokenizer.is_fast:
            raise ModelLoadError(f"the model {name} has no fast tokenizer: which characters a token is cannot be told")

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return super().encode(self._shown(text), add_special_tokens=add_special_tokens)

    def read(
        self, text: str, other: str | None = None, *, cut: Cut | None = None, has_places: bool = False
    ) -> EncoderInput:
        """A text, or a pair of texts, as the model reads it; without ``cut`` nothing is left out.

        ``has_places``: with the characters and the text of each token. Raises ``InvalidParameterError`` where nothing
        would be left of what is cut.
        """
        [found] = self._read([(text,) if other is None else (text, other)], cut, has_places=has_places)
        return found

    def read_pairs(self, pairs: Iterable[tuple[str, str]], *, cut: Cut | None = None) -> Iterator[EncoderInput]:
        """Pairs of texts as the model reads them, some at once: a call to the tokenizer costs more than a text."""
        rest = iter(pairs)
        while some := list(islice(rest, PAIRS_AT_ONCE)):
            yield from self._read(some, cut)

    def _read(
        self, rows: Sequence[tuple[str, ...]], cut: Cut | None, *, has_places: bool = False
    ) -> list[EncoderInput]:
        shown = [[self._shown(text) for text in row] for row in rows]
        if cut is None:
            for row in shown:
                self.require_short(*row)
            return self._tokenized(shown, has_places, {})
        shown = [[self.shortened(text, cut.side) for text in row] for row in shown]
        bound = min(self.context_tokens, self.context_tokens if cut.most_tokens is None else cut.most_tokens)
        found = self._tokenized(shown, has_places, {"truncation": cut.strategy, "max_length": bound}, cut.side)
        # Tokenizers leave a text whole where not even its special tokens fit.
        if any(len(one.ids) > bound for one in found):
            raise InvalidParameterError(f"{cut.param}: {bound} tokens leave no room for a text", param=cut.param)
        return found

    def read_prompted(self, text: str, prompt: str | None, *, cut: Cut | None = None) -> EncoderInput:
        """A text behind the prompt of this name, or behind the model's default. Raises ``RequestError``."""
        words = self._prompt(prompt)
        found = self.read(words + text, cut=cut)
        if not words or self.form.pools_prompt:
            return found
        # As sentence-transformers counts them: with the mark at the front, without the one behind.
        num_unpooled = min(len(self.read(words).ids) - 1, len(found.ids) - 1)
        return replace(found, num_unpooled=num_unpooled)

    def _prompt(self, name: str | None) -> str:
        chosen = self.form.default_prompt if name is None else name
        if chosen is None:
            return ""
        if chosen not in self.form.prompts:
            known = ", ".join(sorted(self.form.prompts)) or "none"
            raise InvalidParameterError(f"prompt_name: the model {self.name} has: {known}", param="prompt_name")
        return self.form.prompts[chosen]

    def windows(self, text: str, before: str | None = None, *, num_tokens: int, overlap: int) -> list[EncoderInput]:
        """A text in parts of at most ``num_tokens``, each behind ``before`` where there is that; with places.

        Parts have ``overlap`` tokens in common with the next. Raises ``ContextLengthError`` for too long a text.
        """
        texts = [self._shown(one) for one in (before, text) if one is not None]
        self.require_short(*texts, most_tokens=MAX_WINDOWS * max(num_tokens - overlap, 1))
        strategy = "only_first" if before is None else "only_second"
        options = {
            "truncation": strategy,
            "max_length": num_tokens,
            "stride": overlap,
            "return_overflowing_tokens": True,
        }
        return self._tokenized([texts], True, options)

    def _tokenized(
        self, rows: list[list[str]], has_places: bool, options: dict[str, Any], side: Side = "right"
    ) -> list[EncoderInput]:
        """Rows of a text, or of a pair, each; a row that the tokenizer parts gives several."""
        if has_places:
            is_fast = self.tokenizer.is_fast
            options = {**options, "return_special_tokens_mask": True, "return_offsets_mapping": is_fast}
        with held(self._lock):
            self.tokenizer.truncation_side = side
            found = self.tokenizer(*map(list, zip(*rows, strict=True)), verbose=False, **options)
        return [self._input(found, at) for at in range(len(found["input_ids"]))]

    def _input(self, found: Any, at: int) -> EncoderInput:
        """One of those that the tokenizer gave."""

        def values(name: str) -> list[Any]:
            given = found.get(name) or []
            return list(given[at]) if given else []

        types = values("token_type_ids")
        return EncoderInput(
            self.checked(values("input_ids")),
            types if any(types) else [],
            values("offset_mapping"),
            self._segments(found, at, values("special_tokens_mask")),
        )

    def _segments(self, found: Any, at: int, specials: list[int]) -> list[int | None]:
        if not specials:
            return []
        if self.tokenizer.is_fast:
            return list(found.sequence_ids(at))
        return [None if special else 0 for special in specials]

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

    def find_entities(
        self, text: str, parts: Sequence[tuple[EncoderInput, Encoded]], strategy: Strategy, ignored: Sequence[str]
    ) -> list[Entity]:
        """What transformers' token-classification pipeline answers for a text that was read in one part or several."""
        with held(self._lock):
            finder = EntityFinder(self.tokenizer, self.labels.names, strategy, ignored)
            found = [one for given, encoded in parts for one in finder.find(text, given, required(encoded.table))]
        return found if len(parts) < 2 else without_overlaps(found)

    def find_answers(
        self, parts: Sequence[tuple[EncoderInput, Encoded]], top_k: int, most_tokens: int, *, may_be_none: bool
    ) -> list[Span]:
        """The best answers in the parts of a text."""
        finder = SpanFinder(top_k, most_tokens, may_be_none, self.tokenizer.cls_token_id)
        return finder.find((given, required(encoded.table)) for given, encoded in parts)

    def _proposal(self, ids: list[int], at: int, token: int, score: float, *, is_single: bool) -> dict[str, object]:
        sequence = [*ids[:at], token, *ids[at + 1 :]]
        shown = [one for one in sequence if one != self.tokenizer.pad_token_id]
        return {
            "score": score,
            "token": token,
            "token_str": self.tokenizer.decode([token]),
            "sequence": self.tokenizer.decode(shown, skip_special_tokens=is_single),
        }


def required(table: Table | None) -> Table:
    """What the head of such a model always gives."""
    assert table is not None, "the task is checked when a request is admitted"
    return table


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
