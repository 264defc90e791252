"""The play that every engine is checked with holds what serving holds, and costs few passes."""

from __future__ import annotations

import pytest

from app.core.settings import load_settings
from app.engine.checks.plays import BRIEF, FULL
from app.engine.checks.steps import on_slots
from app.engine.kv.cache import KVCache
from app.engine.runners.eager import EagerRunner
from app.engine.runners.mixed import MixedRunner
from tests.unit.engine.driver import load


@pytest.fixture
def passes(model_folder, monkeypatch):
    """Tells what the mixed engine does in a play, as ``(what, size)``."""
    notes: list[tuple[str, object]] = []

    def note(kind, name, describe):
        method = getattr(kind, name)

        def noting(self, *args, **options):
            notes.append((name, describe(*args)))
            return method(self, *args, **options)

        monkeypatch.setattr(kind, name, noting)

    note(EagerRunner, "prefill", lambda row, tokens, start: start > 0)
    note(EagerRunner, "decode", lambda tokens, starts: (len(tokens), len(set(starts))))
    note(MixedRunner, "mixed", lambda tokens, starts, chunks: (len(tokens), len(chunks)))
    note(KVCache, "swap_rows", lambda a, b, count: a != b and count > 0)
    note(KVCache, "copy_row", lambda source, target, count: count > 0)
    model = load(model_folder("llama"))
    settings = load_settings({"FORKLIFT_MODEL": "unused", "FORKLIFT_MAX_BATCH_SIZE": "4"})

    def played(play):
        notes.clear()
        assert on_slots(MixedRunner)(model, settings, play).failure is None
        return notes

    return played


def test_the_play_has_every_kind_of_pass(passes):
    noted = passes(FULL)
    assert_basics(noted)
    assert any(name == "mixed" and size[1] > 1 and size[0] for name, size in noted), "several beside a row"
    assert ("swap_rows", True) in noted
    assert ("copy_row", True) in noted


def test_the_brief_play_has_all_that_a_fault_was_ever_found_in(passes):
    assert_basics(passes(BRIEF))


def assert_basics(noted) -> None:
    assert ("prefill", False) in noted and ("prefill", True) in noted, "a prompt in pieces, alone"
    assert ("mixed", (0, 2)) in noted and ("mixed", (1, 1)) in noted, "prompts beside each other and beside a row"
    assert ("decode", (1, 1)) in noted, "a row alone"
    assert any(name == "decode" and size[1] > 1 for name, size in noted), "rows of unlike lengths"


@pytest.mark.parametrize("play", [FULL, BRIEF], ids=["full", "brief"])
def test_a_play_takes_no_more_passes_than_it_says(passes, play):
    num_engine = sum(name in ("prefill", "decode", "mixed") for name, _ in passes(play))
    assert num_engine + len(play.new_tokens) <= play.num_passes
