"""Guesses are fed while they pay, and tried for a small share of the time; what they are never changes a text."""

from __future__ import annotations

import random

import pytest
import torch

from app.core.settings import MOST_ADAPTED, load_settings
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.drafts.draft_policy import FIRST_LENGTH, SHARE, DraftPolicy, DraftRecord
from app.engine.generation.scheduler import Limits
from tests.unit.engine.planned_world import World

PLAIN_S = 0.02


class Clock:
    """Decoding on a machine where each further token of a row adds ``share`` of a step."""

    def __init__(self, share: float, num_rows: int = 1, rights: float = 0.0, seed: int = 0):
        self.policy, self.record = DraftPolicy(), DraftRecord(MOST_ADAPTED, adapts=True)
        self._share, self._num_rows, self._rights = share, num_rows, rights
        self._rng = random.Random(seed)
        self.spent_s, self.num_tokens, self.num_drafted = 0.0, 0, 0

    def step(self, proposes: bool = True) -> None:
        num_guessed, num_new = self.record.length, 1 + self.record.length
        if not proposes or not self.policy.is_worth(self._num_rows, num_new, self.record.rate * num_guessed):
            num_guessed, num_new = 0, 1
        right = 0
        while right < num_guessed and self._rng.random() < self._rights:
            right += 1
        took_s = PLAIN_S * (1 + self._share * (num_new - 1)) * self._rng.uniform(0.95, 1.05)
        self.record.note(num_guessed, right)
        self.policy.observe(self._num_rows, num_new, right, took_s)
        self.spent_s += took_s
        self.num_tokens += self._num_rows + right
        self.num_drafted += bool(num_guessed)

    @property
    def slowdown(self) -> float:
        """Against the same tokens without guesses."""
        return self.spent_s / (PLAIN_S * self.num_tokens / self._num_rows)


@pytest.mark.parametrize("num_rows", [1, 4, 16])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("rights", [0.0, 0.2, 0.5])
def test_guesses_cost_no_more_than_two_hundredths_whatever_the_text(share, num_rows, rights):
    clock = Clock(share, num_rows, rights)
    for _ in range(4000):
        clock.step()
    assert clock.slowdown < 1.02


@pytest.mark.parametrize("share", [0.05, 0.33])
def test_a_text_that_repeats_itself_is_guessed_and_becomes_faster(share):
    clock = Clock(share, rights=0.95)
    for _ in range(1000):
        clock.step()
    assert clock.slowdown < 0.75


def test_guessing_ends_when_a_text_stops_repeating_itself_and_is_tried_again():
    clock = Clock(0.33, rights=0.95)
    for _ in range(500):
        clock.step()
    clock._rights, before = 0.0, clock.num_drafted
    for _ in range(20):
        clock.step()
    after = clock.num_drafted
    assert after - before < 20
    for _ in range(1000):
        clock.step()
    assert 1 <= clock.num_drafted - after < 3 + 1000 * SHARE / (0.33 * FIRST_LENGTH)
    clock._rights = 0.95
    for _ in range(500):
        clock.step()
    assert clock.record.rate > 0.5


def test_nothing_is_guessed_before_a_plain_step_was_measured():
    policy = DraftPolicy()
    assert not policy.is_worth(1, 3, 2.0)
    policy.observe(1, 1, 0, PLAIN_S)
    assert policy.is_worth(1, 3, 2.0)
    assert not policy.is_worth(2, 3, 2.0)


def test_a_fixed_number_never_changes():
    record = DraftRecord(6, adapts=False)
    for _ in range(5):
        record.note(6, 0)
    assert record.length == 6


def test_while_prompts_are_read_nothing_is_guessed_so_that_one_pass_takes_both():
    world = World(Limits(2, 16, 200, can_mix=True, has_drafts=True, adapts_drafts=True))
    world.arrive([1, 2, 3], 60, b"a")
    for _ in range(4):
        world.step()
    [first] = world.started
    first.proposal, first.rate = [7, 8], 1.0
    assert any(world.scheduler.schedule(0.0).drafts)
    world.arrive(list(range(40)), 4, b"b")
    step = world.step()
    assert step.plan.chunks
    assert step.plan.is_mixed
    assert not any(step.drafts)


def test_sequences_are_told_what_became_of_their_drafts():
    world = World(Limits(1, 16, 200, has_drafts=True, adapts_drafts=True))
    world.arrive([1, 2, 3], 60, b"a")
    for _ in range(3):
        world.step()
    [first] = world.started
    first.proposal, first.rate = [-1, -2], 1.0
    before = first.num_cached
    world.step()
    assert first.noted[-1] == (2, first.num_cached - before - 1)


@pytest.mark.parametrize(
    ("given", "drafts", "adapts"), [("auto", MOST_ADAPTED, True), (None, 0, False), ("5", 5, False)]
)
def test_the_setting_is_a_number_or_adapts(given, drafts, adapts):
    environ = {} if given is None else {"FORKLIFT_PROMPT_LOOKUP": given}
    options = BatchOptions.of(load_settings({"FORKLIFT_MODEL": "unused", **environ}), torch.device("cpu"))
    assert (options.num_draft_tokens, options.adapts_drafts) == (drafts, adapts)
