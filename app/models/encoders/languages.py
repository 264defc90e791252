"""Which languages an encoder-decoder model translates between, and how it is told: pure functions of its small files.

Four ways: tokens of languages (mBART, M2M100, NLLB), a word in front of the text (Marian with several targets), a
prefix that the config names for a pair (T5), or one pair that is never told.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from app.core.errors import InvalidParameterError, UnsupportedParameterError

_NLLB_CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,7}")
_PAIR = re.compile(r"translation_([A-Za-z]+)_to_([A-Za-z]+)")
# Their decoder begins with the language's token (transformers' pages of these families); others' is forced behind it.
BEGIN_WITH_LANGUAGE = ("MBartTokenizer", "MBartTokenizerFast", "PLBartTokenizer")
MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class Instruction:
    """How a model is told what to do with a text.

    ``prefix`` goes in front of it; ``src_lang`` is the language that the tokenizer marks it with; ``changes`` are
    settings of the generation that differ from the checkpoint's.
    """

    prefix: str = ""
    src_lang: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


NO_INSTRUCTION = Instruction()


class Languages:
    """The languages of one model; ``params`` are its config's ``task_specific_params``."""

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase, params: Mapping[str, Mapping[str, Any]]):
        self._name = name
        self._tokens = token_ids_of(tokenizer)
        self._start = type(tokenizer).__name__ in BEGIN_WITH_LANGUAGE
        self._targets = {code.strip("<>"): code for code in getattr(tokenizer, "supported_language_codes", [])}
        self._pairs = {match.groups(): params[key] for key in params if (match := _PAIR.fullmatch(key))}
        named = tokenizer.init_kwargs
        self._src = named.get("src_lang") or named.get("source_lang")
        self._tgt = named.get("tgt_lang") or named.get("target_lang")

    @property
    def sources(self) -> list[str]:
        """What ``src_lang`` may be; empty where there is one pair that nothing names."""
        return sorted(self._tokens) or sorted({src for src, _ in self._pairs}) or [self._src] * bool(self._src)

    @property
    def targets(self) -> list[str]:
        """What ``tgt_lang`` may be."""
        names = sorted(self._tokens) or sorted(self._targets) or sorted({tgt for _, tgt in self._pairs})
        return names or [self._tgt] * bool(self._tgt)

    def instruction(self, src: str | None, tgt: str | None) -> Instruction:
        """How to have a text translated. Raises a ``RequestError`` that names the field at fault."""
        if self._tokens:
            return self._by_token(src, tgt)
        if self._targets:
            self._require("src_lang", src, self.sources)
            return Instruction(prefix=f"{self._targets[self._known('tgt_lang', tgt, self.targets)]} " if tgt else "")
        if self._pairs:
            return self._by_prefix(src, tgt)
        self._require("src_lang", src, self.sources)
        self._require("tgt_lang", tgt, self.targets)
        return NO_INSTRUCTION

    def _by_token(self, src: str | None, tgt: str | None) -> Instruction:
        src, tgt = self._known("src_lang", src or self._src, self.sources), tgt or self._tgt
        if tgt is None:
            raise InvalidParameterError(f"tgt_lang: is missing; {self._listed(self.targets)}", param="tgt_lang")
        token = self._tokens[self._known("tgt_lang", tgt, self.targets)]
        changes = {"decoder_start_token_id": token} if self._start else {"forced_bos_token_id": token}
        return Instruction(src_lang=src, changes=changes)

    def _by_prefix(self, src: str | None, tgt: str | None) -> Instruction:
        if src is None and tgt is None and len(self._pairs) == 1:
            [(src, tgt)] = self._pairs
        src = self._known("src_lang", src, self.sources)
        known = sorted(other for one, other in self._pairs if one == src)
        return told_by(self._pairs[src, self._known("tgt_lang", tgt, known)])

    def _require(self, param: str, given: str | None, known: list[str]) -> None:
        """Raise where a language is named that the model does not have."""
        if given is not None and not known:
            text = (
                f"{param}: the model {self._name} has one pair of languages, which its files do not name; leave it out"
            )
            raise UnsupportedParameterError(text, param=param)
        if given is not None:
            self._known(param, given, known)

    def _known(self, param: str, given: str | None, known: list[str]) -> str:
        if given is None:
            raise InvalidParameterError(f"{param}: is missing; {self._listed(known)}", param=param)
        if given not in known:
            close = difflib.get_close_matches(given[:64], known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise InvalidParameterError(f"{param}: unknown language; {hint}{self._listed(known)}", param=param)
        return given

    def _listed(self, known: list[str]) -> str:
        return f"the model {self._name} has {', '.join(known[:MAX_LISTED])}" + ", ..." * (len(known) > MAX_LISTED)


def token_ids_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The token of each language, where the tokenizer marks texts with them."""
    if not hasattr(tokenizer, "set_src_lang_special_tokens"):
        return {}
    named = getattr(tokenizer, "lang_code_to_id", None)
    if named is None:
        codes = [str(token) for token in tokenizer.all_special_tokens if _NLLB_CODE.fullmatch(str(token))]
        named = dict(zip(codes, tokenizer.convert_tokens_to_ids(codes), strict=True))
    return {str(code): token for code, token in named.items() if token is not None and token != tokenizer.unk_token_id}


def told_by(params: Mapping[str, Any]) -> Instruction:
    """What a config says of one task."""
    prefix = params.get("prefix")
    changes = {name: value for name, value in params.items() if name != "prefix"}
    return Instruction(prefix=prefix if isinstance(prefix, str) else "", changes=changes)
