"""The pure parts of the demo model's tools, and the committed tokenizer; nothing is trained here."""

import ast
import dataclasses
import random
import textwrap
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tools.demo_model import code, corpus, finetune, functions, held_out, infill, packing, questions, samples, train
from tools.demo_model.paths import MODEL_FOLDER

SOURCE = '''import os

# Joins things.
@cache
def join(a, b):
    """Join two paths, e.g. a and b.  They may be empty.

    More words.
    """
    c = a + b
    return c


class Thing:
    def size(self): return 1
'''


def definition(name: str) -> tuple[ast.AST, str]:
    return next((node, text) for node, text in code.definitions(SOURCE) if node.name == name)


def test_the_first_sentence_skips_abbreviations_and_joins_lines():
    docstring = "Join two\n    paths, e.g. a and b.  They may.\n\nMore."
    assert code.first_sentence(docstring) == "Join two paths, e.g. a and b."


def test_a_docstring_without_a_full_stop_has_no_first_sentence():
    assert code.first_sentence("join(a, b) -> c") == ""


def test_chunks_keep_every_statement_and_cut_before_its_comment():
    pieces = code.chunks(SOURCE, max_chars=20)
    assert [piece.splitlines()[0] for piece in pieces] == ["import os", "# Joins things.", "class Thing:"]
    assert all(code.parse(piece) for piece in pieces)


def test_a_comment_above_takes_the_place_of_the_docstring():
    node, source = definition("join")
    expected = "# Join two paths, e.g. a and b.\ndef join(a, b):\n    c = a + b\n    return c\n"
    assert code.comment_above(node, source) == expected


def test_a_definition_without_docstring_is_announced_by_its_name_in_words():
    assert code.spoken_name("_splitExt_drive") == "split ext drive"


def test_a_function_start_ends_after_the_docstring():
    start = code.function_start(*definition("join"))
    assert start.prompt.endswith('    """\n')
    assert start.rest == "    c = a + b\n    return c\n"


def test_a_one_line_function_has_no_start():
    assert code.function_start(*definition("size")) is None


@given(st.integers())
def test_a_random_hole_puts_together_to_the_original(seed):
    hole = infill.random_hole(SOURCE, random.Random(seed))
    assert hole.prefix + hole.middle + hole.suffix == SOURCE


def test_a_line_hole_may_leave_the_indentation_in_the_prefix():
    line = SOURCE.splitlines().index("    return c")
    assert infill.line_hole(SOURCE, line, keep_indent=True).middle == "return c"
    assert infill.line_hole(SOURCE, line, keep_indent=False).middle == "    return c"


def test_a_window_keeps_whole_lines_next_to_the_hole():
    hole = infill.windowed(infill.Hole("aaa\nbbb\nc", "d\neee\nfff", "x"), prefix_chars=6, suffix_chars=4)
    assert hole == infill.Hole("bbb\nc"[0:5], "d\n", "x")


@given(st.integers())
def test_a_cut_sample_is_the_same_text(seed):
    parts = samples.plain_sample(SOURCE, random.Random(seed))
    assert "".join(part.text for part in parts) == SOURCE


def test_only_what_the_assistant_says_is_learned():
    sample = samples.chat_sample(questions.exchange("What does x do?", "It works."))
    assert [part.text for part in sample if part.weight] == ["It works.<|im_end|>"]


@given(st.integers())
def test_a_line_sample_learns_what_is_missing_and_nothing_else(seed):
    pool = samples.code_pool([corpus.SourceFile("a.py", SOURCE, 1.0)])
    context, middle = samples.line_infill_sample(pool, random.Random(seed))
    assert (context.weight, middle.weight) == (0, samples.MIDDLE_WEIGHT)
    prefix, suffix = context.text.removeprefix("<|fim_prefix|>").split("<|fim_suffix|>")
    whole = prefix + middle.text.removesuffix("<|endoftext|>") + suffix.removesuffix("<|fim_middle|>")
    assert whole in SOURCE or whole in textwrap.dedent("    def size(self): return 1\n")


def test_most_line_samples_miss_one_line():
    pool = samples.code_pool([corpus.SourceFile("a.py", SOURCE, 1.0)])
    rng = random.Random(0)
    middles = [samples.line_infill_sample(pool, rng)[1].text.removesuffix("<|endoftext|>") for _ in range(200)]
    lines = {line.strip() for line in SOURCE.splitlines()}
    assert sum(middle.strip() in lines for middle in middles) > 140


def test_known_functions_are_short_public_and_documented():
    kept = 'def keep(a):\n    """Keep it."""\n    b = a\n    return b\n'
    others = (
        kept.replace("keep", "_keep"),
        kept.replace("Keep it.", ""),
        "class C:\n" + textwrap.indent(kept, "    "),
        kept.replace("b = a", f"b = '{'a' * 400}'"),
        'def keep(a):\n    """Keep it."""\n    return a\n',
    )
    files = [corpus.SourceFile(str(number), text, 2.0) for number, text in enumerate((kept, *others, kept))]
    assert functions.known_functions(files) == ["def keep(a):\n    b = a\n    return b\n"]
    assert functions.known_functions([corpus.SourceFile("a", kept, 1.0)]) == []


@given(st.integers())
def test_a_line_of_a_known_function_is_missing_and_all_of_it_is_learned(seed):
    pool = samples.code_pool([corpus.SourceFile("a.py", SOURCE, 2.0)])
    context, middle = samples.known_sample(pool, random.Random(seed))
    assert (context.weight, middle.weight) == (1, samples.MIDDLE_WEIGHT)
    assert middle.text.removesuffix("<|endoftext|>").strip() in ("def join(a, b):", "c = a + b", "return c")


@pytest.mark.parametrize("mixture", samples.MIXTURES.values(), ids=list(samples.MIXTURES))
def test_a_round_shows_every_pair_and_the_wanted_amount_of_code(mixture):
    pool = samples.code_pool([corpus.SourceFile("a.py", SOURCE, 2.0)])
    small = dataclasses.replace(mixture, code_chars=5000)
    pairs = [questions.Pair("f", "It works."), questions.Pair("g", "It fails.")]
    (drawn,) = samples.rounds(small, pool, pairs, seed=0, num_rounds=1)
    texts = ["".join(segment.text for segment in sample) for sample in drawn]
    for pair in pairs:
        assert sum(pair.answer in text for text in texts) >= mixture.showings_of_pairs
    assert sum(len(text) for text in texts if "<|im_start|>" not in text) >= 5000
    assert drawn == next(samples.rounds(small, pool, pairs, seed=0, num_rounds=1))


def test_rows_hold_whole_samples_and_never_learn_their_first_token():
    packer = packing.RowPacker(4)
    packer.add_round([packing.TokenizedSample(ids, [1] * len(ids)) for ids in ([5, 6, 7], [8, 9], [4])])
    rows = packer.arrays()
    np.testing.assert_array_equal(rows["tokens"], [[5, 6, 7, 4], [8, 9, 0, 0]])
    np.testing.assert_array_equal(rows["weights"], [[0, 1, 1, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(rows["segments"], [[1, 1, 1, 2], [1, 1, 0, 0]])


def test_the_rate_of_further_training_warms_up_and_reaches_zero_with_the_time():
    time_s = iter([0.0, 0.0, 0.0, 50.0, 75.0, 100.0, 130.0])
    clock = finetune.Clock(100.0, now=lambda: next(time_s))
    assert clock.rate(step=0, peak=0.5) == 0.5 / finetune.WARMUP_STEPS
    assert [clock.rate(step=1000, peak=0.5) for _ in range(5)] == [0.5, 0.25, 0.125, 0.0, 0.0]


def few_rows(folder):
    tokens = np.arange(64, dtype=np.uint16).reshape(4, 16)
    weights = np.tile(np.array([0] * 8 + [4] * 8, np.uint8), (4, 1))
    np.savez(folder / "rows.npz", tokens=tokens, weights=weights, segments=np.ones((4, 16), np.uint16))


@pytest.mark.slow
def test_further_training_starts_from_the_exported_weights_and_ends_with_the_time(tmp_path):
    few_rows(tmp_path)
    trainer = train.Trainer(seed=3)
    finetune.load_exported(trainer, MODEL_FOLDER)
    rows = train.Rows(tmp_path / "rows.npz", 2)
    with torch.inference_mode():
        before = trainer.loss(*rows.batch(0)).item()
    time_s = iter([0.0, 10.0, 10.0, 10.0, 100.0])
    clock = finetune.Clock(100.0, now=lambda: next(time_s))
    train.run(trainer, rows, finetune.paces(trainer, len(rows), clock, 0.5), tmp_path)
    assert trainer.step == 1
    with torch.inference_mode():
        assert trainer.loss(*rows.batch(0)).item() < before


@pytest.mark.slow
def test_an_ended_training_is_resumed_where_it_ended(tmp_path):
    few_rows(tmp_path)
    trainer, again = train.Trainer(seed=3), train.Trainer(seed=4)
    rows = train.Rows(tmp_path / "rows.npz", 1)
    train.run(trainer, rows, train.paces(trainer, steps=2, decay_steps=1), tmp_path)
    again.load(tmp_path / train.CHECKPOINT)
    assert (trainer.step, again.step) == (2, 2)
    assert list(train.paces(again, steps=2, decay_steps=1)) == []
    torch.testing.assert_close(again.model.state_dict(), trainer.model.state_dict())


def test_the_average_lies_between_the_trained_and_the_exported_weights():
    trainer, exported = train.Trainer(seed=3), train.Trainer(seed=4)
    finetune.load_exported(exported, MODEL_FOLDER)
    new, old = trainer.model.lm_head.weight.detach().clone(), exported.model.lm_head.weight
    finetune.average(trainer, MODEL_FOLDER, old_share=0.25)
    torch.testing.assert_close(trainer.model.lm_head.weight, 0.75 * new + 0.25 * old)


def test_a_completion_is_cut_after_its_last_whole_line():
    assert held_out.whole_lines("a\nb\nc") == "a\nb\n"
    assert held_out.whole_lines("a") == ""


@pytest.mark.parametrize("name", ["test/test_os.py", "idlelib/idle_test/htest.py", "unittest/test/dummy.py"])
def test_test_packages_are_held_out(name):
    assert corpus.is_held_out(corpus.Path(name))


def test_questions_take_their_answer_from_the_docstring():
    answers = {pair.name: pair.answer for pair in questions.pairs()}
    assert answers["textwrap.dedent"] == "Remove any common leading whitespace from every line in `text`."
    assert answers["len"] == "Return the number of items in a container."


@given(st.text())
def test_the_tokenizer_round_trips_any_normalized_text(text):
    text = unicodedata.normalize("NFC", text)
    tokenizer = loaded_tokenizer()
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_chat_template_starts_the_answer_only_when_asked():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    text = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
    rendered = [
        loaded_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=wanted)
        for wanted in (False, True)
    ]
    assert rendered == [text, text + "<|im_start|>assistant\n"]


_TOKENIZERS = []


def loaded_tokenizer():
    if not _TOKENIZERS:
        _TOKENIZERS.append(AutoTokenizer.from_pretrained(MODEL_FOLDER))
    return _TOKENIZERS[0]
