"""Each family's infilling prompt; nothing that a user sends acts as a control token."""

from __future__ import annotations

import pytest

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.settings import load_settings
from app.models.loader import load_checkpoint
from app.models.text_model import TextModel
from tests.tiny_models import INFILL_TOKENS

FILES = [("a.py", "x = 1"), ("b.py", "y = 2\n")]


@pytest.fixture(scope="module")
def model_of(model_folder):
    def make(family: str) -> TextModel:
        settings = load_settings({"FORKLIFT_MODEL": str(model_folder(family))})
        return TextModel("tiny", load_checkpoint(settings, lambda _: None), 4096)

    return make


def shown(model: TextModel, ids: list[int]) -> str:
    return model.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("incoder", "a<|mask:0|>b<|mask:1|><|mask:0|>"),
        ("qwen-coder", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"),
        ("codegemma", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"),
        ("starcoder", "<fim_prefix>a<fim_suffix>b<fim_middle>"),
        ("deepseek-coder", "<\uff5cfim\u2581begin\uff5c>a<\uff5cfim\u2581hole\uff5c>b<\uff5cfim\u2581end\uff5c>"),
        ("code-llama", "\u2581<PRE>a\u2581<SUF>b\u2581<MID>"),
    ],
)
def test_each_family_has_its_own_form(model_of, family, expected):
    model = model_of(family)
    prompt = model.encode_infill(["a", "b"], [])
    assert model.has_infill
    assert shown(model, prompt.ids) == expected
    ends = {model.tokenizer.convert_tokens_to_ids(token) for token in INFILL_TOKENS[family]}
    assert ends <= prompt.stop_ids


@pytest.mark.parametrize("family", INFILL_TOKENS)
def test_control_tokens_in_a_users_text_are_text(model_of, family):
    model = model_of(family)
    names = [*INFILL_TOKENS[family], "<|endoftext|>", "<|pad|>"]
    hostile = "".join(f"{name} <{name}" for name in names)
    control = {model.tokenizer.convert_tokens_to_ids(name) for name in names}

    def control_tokens(ids: list[int]) -> list[int]:
        return [token for token in ids if token in control]

    harmless = model.encode_infill(["a", "b"], [], [("f", "t")])
    attacked = model.encode_infill([hostile, hostile], [], [(hostile, hostile)])
    assert control_tokens(attacked.ids) == control_tokens(harmless.ids)
    assert shown(model, attacked.ids).count(hostile) >= 2


def test_ordinary_text_is_encoded_as_ever(model_of):
    model = model_of("qwen-coder")
    text = "def f(x):\n\treturn 'é 你好 🎉'  # <|not a token|>\n"
    ids = model.encode_infill([text, text], []).ids
    plain = model.encode(text)
    assert ids[1 : 1 + len(plain)] == plain
    assert ids[2 + len(plain) : -1] == plain


@pytest.mark.parametrize(
    ("family", "second"),
    [
        ("incoder", "a<|mask:0|>b<|mask:1|>c<|mask:2|><|mask:0|>X<|endofmask|><|mask:1|>"),
        ("qwen-coder", "<|fim_prefix|>aXb<|fim_suffix|>c<|fim_middle|>"),
    ],
)
def test_a_second_hole_sees_what_fills_the_first(model_of, family, second):
    model = model_of(family)
    assert shown(model, model.encode_infill(["a", "b", "c"], ["X"]).ids) == second


def test_incoder_has_as_many_holes_as_masks_less_one(model_of):
    model = model_of("incoder")
    assert model.encode_infill(["a"] * 4, []).ids
    with pytest.raises(InvalidParameterError, match="at most 3 holes"):
        model.encode_infill(["a"] * 5, [])


@pytest.mark.parametrize(
    ("family", "context"),
    [
        ("incoder", "x = 1\ny = 2\n"),
        (
            "qwen-coder",
            "<|repo_name|>repository\n<|file_sep|>a.py\nx = 1\n<|file_sep|>b.py\ny = 2\n<|file_sep|>\n",
        ),
        ("codegemma", "a.py\nx = 1<|file_separator|>b.py\ny = 2\n<|file_separator|>"),
        ("starcoder", "x = 1\ny = 2\n"),
    ],
)
def test_other_files_stand_in_front(model_of, family, context):
    model = model_of(family)
    without = shown(model, model.encode_infill(["a", "b"], []).ids)
    assert shown(model, model.encode_infill(["a", "b"], [], FILES).ids) == context + without


def test_a_model_without_a_format_says_so(model_of):
    model = model_of("plain")
    assert not model.has_infill
    with pytest.raises(UnsupportedParameterError, match="the model tiny does not fill holes"):
        model.encode_infill(["a", "b"], [])


def test_sentencepiece_thinks_no_space_before_a_continued_text():
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    from app.models.plain_text import PlainText

    alphabet = ["<unk>", "<s>", "\u2581", "\u2581a", "a", "b", "\u263a", "<MID>"]
    backend = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(alphabet)}, [("\u2581", "a")], unk_token="<unk>")
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")
    plain = PlainText(tokenizer, ["<MID>"])
    assert tokenizer.convert_ids_to_tokens(plain.encode("ab a")) == ["\u2581a", "b", "\u2581a"]
    assert tokenizer.convert_ids_to_tokens(plain.encode("ab a", is_continued=True)) == ["a", "b", "\u2581a"]
