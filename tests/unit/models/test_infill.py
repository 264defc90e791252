"""Each family's infilling prompt; nothing that a user sends acts as a control token."""

from __future__ import annotations

import re

import pytest

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.text_model import TextModel
from app.models.tokens.infill import Infilling
from app.models.tokens.infill_families import FAMILIES, MASK_FAMILIES
from tests.tiny_models import INFILL_TOKENS, tiny_tokenizer

TOKENS = list(INFILL_TOKENS.values())
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
        ("starcoder2", "<fim_prefix>a<fim_suffix>b<fim_middle>"),
        ("granite-code", "<fim_prefix>a<fim_suffix>b<fim_middle>"),
        ("granite4", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"),
        ("santacoder", "<fim-prefix>a<fim-suffix>b<fim-middle>"),
        ("mellum", "<fim_suffix>b<fim_prefix>a<fim_middle>"),
        ("seed-coder", "<[fim-suffix]>b<[fim-prefix]>a<[fim-middle]>"),
        ("codestral", "[SUFFIX]b[PREFIX]a"),
        ("glm", "<|code_prefix|>a<|code_suffix|>b<|code_middle|>"),
        (
            "codegeex4",
            "<|user|>\n###MODE:BLOCK\n<|code_suffix|>b<|code_prefix|>a<|code_middle|><|assistant|>\n",
        ),
        ("aixcoder", "\u2581<AIX-SPAN-PRE>\u2581<AIX-SPAN-POST>b\u2581<AIX-SPAN-MIDDLE>a"),
        ("codegen2", "a<mask_1>b<|endoftext|><sep><mask_1>"),
    ],
)
def test_each_family_has_its_own_form(model_of, family, expected):
    model = model_of(family)
    prompt = model.encode_infill(["a", "b"], [])
    assert model.has_infill
    assert shown(model, prompt.ids) == expected
    tokenizer = model.tokenizer
    control = [token for token in INFILL_TOKENS[family] if token in expected and token != "<sep>"]
    assert prompt.ids == token_ids(tokenizer, expected, {*control, "<sep>", "<|endoftext|>"})
    assert {tokenizer.convert_tokens_to_ids(token) for token in control} <= prompt.stop_ids


def token_ids(tokenizer, text: str, control: set[str]) -> list[int]:
    """``text`` cut at the control tokens that stand in it, each piece encoded by itself."""
    pieces = re.split("(" + "|".join(map(re.escape, control)) + ")", text)
    ids: list[int] = []
    for piece in filter(None, pieces):
        whole = piece in control
        ids += (
            [tokenizer.convert_tokens_to_ids(piece)] if whole else tokenizer(piece, add_special_tokens=False).input_ids
        )
    return ids


def test_every_family_of_the_table_names_its_source_and_is_told_from_the_others():
    for family in [*FAMILIES, *MASK_FAMILIES]:
        assert family.source.startswith("https://")
    told = {Infilling.of(tiny_tokenizer(special=["<|endoftext|>", "<|pad|>", *tokens])).name for tokens in TOKENS}
    assert told == {family.name for family in [*FAMILIES, *MASK_FAMILIES]}


def test_a_tokenizer_whose_files_are_named_and_has_no_stars_is_mellums():
    tokens = ["<|endoftext|>", "<|pad|>", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<filename>"]
    assert Infilling.of(tiny_tokenizer(special=tokens)).name == "Mellum"
    assert Infilling.of(tiny_tokenizer(special=[*tokens, "<gh_stars>"])).name == "StarCoder"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("qwen-coder", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>st"),
        ("seed-coder", "<[fim-suffix]>b<[fim-prefix]>a<[fim-middle]>st"),
        ("codestral", "[SUFFIX]b[PREFIX]ast"),
        ("incoder", "a<|mask:0|>b<|mask:1|><|mask:0|>st"),
    ],
)
def test_what_fills_a_hole_may_have_a_start(model_of, family, expected):
    model = model_of(family)
    assert shown(model, model.encode_infill(["a", "b"], [], (), "st").ids) == expected


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
        ("codegen2", "a<mask_1>b<mask_2>c<|endoftext|><sep><mask_1>X<eom><mask_2>"),
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
        ("starcoder2", "<repo_name>repository<file_sep>a.py\nx = 1<file_sep>b.py\ny = 2\n<file_sep>"),
        ("mellum", "<filename>a.py\nx = 1\n<filename>b.py\ny = 2\n"),
    ],
)
def test_other_files_stand_in_front(model_of, family, context):
    model = model_of(family)
    without = shown(model, model.encode_infill(["a", "b"], []).ids)
    assert shown(model, model.encode_infill(["a", "b"], [], FILES).ids) == context + without


def test_codestrals_other_files_belong_to_the_prefix(model_of):
    model = model_of("codestral")
    ids = model.encode_infill(["a", "b"], [], FILES).ids
    assert shown(model, ids) == "[SUFFIX]b[PREFIX]x = 1\ny = 2\na"


def test_a_model_without_a_format_says_so(model_of):
    model = model_of("plain")
    assert not model.has_infill
    with pytest.raises(UnsupportedParameterError, match="the model tiny does not fill holes"):
        model.encode_infill(["a", "b"], [])


def test_sentencepiece_thinks_no_space_before_a_continued_text():
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    from app.models.tokens.plain_text import PlainText

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
