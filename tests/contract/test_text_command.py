"""``forklift text`` against a running server: a line for each result."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from app.cli.main import main
from tests.contract.text_tasks import text_server


@pytest.fixture(scope="module")
def forklift(model_folder, tmp_path_factory):
    with text_server(model_folder, tmp_path_factory.mktemp("text")) as url:
        yield lambda *words: CliRunner().invoke(main, ["text", *words, "--url", url])


def lines_of(result):
    """The command's own lines: the server logs into the same process's output."""
    return [line.split("\t") for line in result.stdout.splitlines() if "\t" in line]


@pytest.mark.parametrize(
    ("words", "num_lines", "known"),
    [
        (["classify", "a b"], 3, {"bad", "fair", "good"}),
        (["zero-shot", "a", "b", "c"], 2, {"b", "c"}),
        (["rerank", "a", "b c", "d", "--top-n", "1"], 1, {"b c", "d"}),
    ],
)
def test_each_result_is_a_line_best_first(forklift, words, num_lines, known):
    result = forklift(*words)
    assert result.exit_code == 0, result.output
    lines = lines_of(result)
    assert len(lines) == num_lines and {word for _, word in lines} <= known
    scores = [float(score) for score, _ in lines]
    assert scores == sorted(scores, reverse=True)


def test_entities_and_answers_are_words_of_the_text(forklift):
    found = forklift("entities", "def load folder")
    assert found.exit_code == 0
    for _, kind, word in lines_of(found):
        assert kind in ("PER", "LOC") and word in "def load folder"
    [(_, word)] = lines_of(forklift("answer", "load", "def load folder"))
    assert word in "def load folder"


def test_what_the_server_refuses_is_one_line(forklift):
    result = forklift("classify", "model " * 80)
    assert result.exit_code == 1
    assert "context_length_exceeded: text: 82 tokens" in result.stderr


@pytest.mark.parametrize(
    "words", [["translate", "--from", "en", "--to", "de", "def load", "a"], ["summarize", "def load", "a"]]
)
def test_texts_made_of_texts_are_a_line_each(forklift, words):
    done = forklift(*words)
    assert done.exit_code == 0, done.output
    assert len([line for line in done.stdout.splitlines() if "[info" not in line]) == 2


def test_an_unknown_language_is_one_line(forklift):
    done = forklift("translate", "--from", "en", "--to", "xx", "a")
    assert (done.exit_code, "tgt_lang: unknown language" in done.stderr) == (1, True)
