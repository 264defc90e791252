"""Tokens one by one, for byte-level and sentencepiece vocabularies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from app.models.tokens.vocabulary import Vocabulary
from tests.tiny_models import tiny_tokenizer

BYTE_LEVEL = tiny_tokenizer()


def sentencepiece():
    bytes_ = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    pieces = [("<unk>", 0.0), *bytes_, ("\u2581", -2.0), ("\u2581def", -1.0), ("f", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("tokenizer", [BYTE_LEVEL, sentencepiece()], ids=["byte-level", "sentencepiece"])
@given(text=st.text(alphabet=" def\n\u00e9\u4f60\U0001f600\u0301", max_size=20))
def test_the_bytes_of_the_tokens_are_the_text(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert Vocabulary(tokenizer).text(ids) == text


def test_a_special_token_has_a_name_but_no_text():
    vocabulary = Vocabulary(BYTE_LEVEL)
    (token,) = BYTE_LEVEL("<|im_end|>")["input_ids"]
    assert vocabulary.is_special(token)
    assert (vocabulary.token_bytes(token), vocabulary.text_bytes(token)) == (b"<|im_end|>", b"")


def test_ids_beyond_the_tokenizer_have_no_bytes():
    assert Vocabulary(BYTE_LEVEL).token_bytes(10**6) == b""


def test_token_ids_echo_without_the_space_that_sentencepiece_thinks_before_a_text():
    pieces = [("<unk>", 0.0), ("\u2581Hi", -1.0), ("\u2581you", -1.0), ("\u2581", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    vocabulary = Vocabulary(fast)
    assert vocabulary.drops_space
    assert vocabulary.text(fast("Hi you", add_special_tokens=False)["input_ids"]) == "Hi you"
    assert not Vocabulary(sentencepiece()).drops_space
