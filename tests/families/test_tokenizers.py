"""Tokenizers without a fast version, without a padding token, with sentencepiece, or with its packages missing."""

from __future__ import annotations

import random
import re

import pytest
import sentencepiece
from transformers import AutoTokenizer

from app.core.errors import ModelLoadError
from app.models.folder import model_folder as model_folders
from app.models.tokens.generating_model import decoder_of
from tests.families.test_bad_folders import load

SENTENCEPIECE = {"llama": "tokenizer.model", "gpt-sw3": "spiece.model"}
WRITTEN = "from . import  x\n\t# h\u00e9 \u4e16\u754c \U0001f600"


@pytest.mark.parametrize("family", SENTENCEPIECE)
def test_sentencepiece_text_is_encoded_as_its_own_library_does(serve, family_folder, family):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(family_folder(family) / SENTENCEPIECE[family]))
    model = serve(family).inference.model
    assert model.encode(WRITTEN, add_special_tokens=False) == processor.encode(WRITTEN)


@pytest.mark.parametrize("family", ["llama", "gpt-sw3", "gpt2"])
def test_streamed_text_keeps_spaces_and_characters_of_several_tokens(serve, family):
    """Fed back token by token through ``echo``: what goes in comes out."""
    client = serve(family).client()
    ids = client.post("/tokenize", json={"text": WRITTEN, "add_special_tokens": False}).get_json()["tokens"]
    assert len(ids) > len(WRITTEN.split())
    assert client.post("/detokenize", json={"tokens": ids}).get_json()["text"] == WRITTEN


def test_a_completion_of_llamas_begins_with_the_space_that_it_wrote(serve):
    """Decoded alone, the first token of a completion would lose it."""
    written = " x , y \u4e16"
    body = {"prompt": "from . import", "regex": re.escape(written), "max_new_tokens": 40}
    assert serve("llama").client().post("/complete", json=body).get_json()["completion"] == written


def test_a_tokenizer_without_fast_version_serves_and_says_what_it_cannot(serve):
    world = serve("gpt-sw3")
    assert not world.inference.model.tokenizer.is_fast
    client = world.client()
    assert client.post("/complete", json={"prompt": "def f", "max_new_tokens": 4}).status_code == 200
    answer = client.post("/complete", json={"prompt": "def f", "regex": "a+", "max_new_tokens": 4})
    assert answer.status_code == 400
    assert "structured output" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize("family", ["codegen", "incoder", "llama", "gpt-sw3", "starcoder2"])
def test_generated_tokens_are_decoded_as_transformers_decodes_them(family_folder, family):
    """Byte-level, sentencepiece, without a fast version, with spaces to clean up, with a ``decode`` of its own."""
    tokenizer = AutoTokenizer.from_pretrained(family_folder(family))
    decode, rng = decoder_of(tokenizer), random.Random(1)
    prompts = [[], tokenizer(WRITTEN)["input_ids"], [tokenizer.eos_token_id]]
    for ids in [*prompts, *([rng.randrange(len(tokenizer)) for _ in range(9)] for _ in range(50))]:
        assert decode(ids) == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_ids_that_the_tokenizer_has_no_token_for_are_no_text(serve):
    """A vocabulary that is padded beyond the tokenizer's: the model may write such an id, and a caller may send it."""
    world = serve("gpt-sw3")
    model = world.inference.model
    unknown = len(model.tokenizer)
    assert unknown < model.vocab_size
    body = {"prompt": "def f", "max_new_tokens": 3, "logit_bias": {str(unknown): 100}, "logprobs": 1}
    answer = world.client().post("/complete", json=body)
    assert (answer.status_code, answer.get_json()["completion"]) == (200, "")
    assert world.client().post("/detokenize", json={"tokens": [unknown]}).get_json()["text"] == ""


@pytest.mark.parametrize("family", ["codegen", "llama", "gpt2", "gpt-bigcode", "starcoder2"])
def test_without_a_padding_token_the_end_token_pads(serve, family):
    model = serve(family).inference.model
    assert model.tokenizer.pad_token is None
    assert model.pad_id == min(model.eos_ids)


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
@pytest.mark.parametrize("family", SENTENCEPIECE)
def test_a_missing_package_is_named(family_folder, monkeypatch, family, package):
    monkeypatch.setattr(model_folders, "is_installed", lambda name: name != package)
    with pytest.raises(ModelLoadError) as raised:
        load(family_folder(family))
    assert str(raised.value) == (
        f"the tokenizer of {family_folder(family)} is a sentencepiece model ({SENTENCEPIECE[family]}) and {package} "
        "is not installed: pip install 'forklift-serve[sentencepiece]'"
    )


def test_packages_are_looked_for_without_importing_them():
    assert model_folders.is_installed("google.protobuf")
    assert not model_folders.is_installed("no_such_package.at_all")
