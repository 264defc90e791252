"""A step reads as many prompt tokens as the running streams can bear, by what steps were measured to take."""

from __future__ import annotations

import pytest

from app.engine.generation.prefill_budget import (
    FIRST_TOKENS,
    LARGEST_CHANGE,
    LEAST_TOKENS,
    LONGEST_S,
    SHORT_S,
    STRETCH,
    PrefillBudget,
)


class Machine:
    """Steps that take a fixed time with prompts, one per prompt token, and one per stream."""

    def __init__(self, *, decode_s: float, fixed_s: float, token_s: float, chunk_tokens: int = 256):
        self.budget = PrefillBudget(chunk_tokens)
        self._decode_s, self._fixed_s, self._token_s = decode_s, fixed_s, token_s

    def stretch(self, num_running: int, steps: int = 40, num_waiting: int = 10_000) -> float:
        """Runs steps with prompts; how much longer the last one took than one without."""
        decode_s = self._decode_s * (1 + num_running / 16)
        self.budget.observe(num_running, 0, decode_s)
        for _ in range(steps):
            tokens = min(self.budget.tokens(num_running), num_waiting)
            took_s = decode_s + self._fixed_s + tokens * self._token_s
            self.budget.observe(num_running, tokens, took_s)
        return took_s / decode_s


# Of 0.5B parameters as measured on two cores, and of somewhat fewer.
MACHINES = [
    {"decode_s": 0.074, "fixed_s": 0.02, "token_s": 0.0006},
    {"decode_s": 0.04, "fixed_s": 0.01, "token_s": 0.0005},
]
# Of 6.8M parameters, and of 10M that keep states: steps of them are short.
SHORT = [
    {"decode_s": 0.0035, "fixed_s": 0.003, "token_s": 0.00006},
    {"decode_s": 0.017, "fixed_s": 0.015, "token_s": 0.0004},
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("num_running", [1, 4])
def test_a_step_with_prompts_is_led_to_a_fixed_multiple_of_one_without(machine, num_running):
    assert Machine(**machine).stretch(num_running) == pytest.approx(STRETCH, rel=0.05)


@pytest.mark.parametrize(("machine", "read"), [(SHORT[0], 256), (SHORT[1], 167)])
def test_a_short_step_is_led_to_what_nobody_notices_or_to_the_whole_chunk(machine, read):
    short = Machine(**machine)
    took_s = short.stretch(1) * machine["decode_s"] * 17 / 16
    assert short.budget.tokens(1) == pytest.approx(read, rel=0.06)
    assert took_s <= 1.05 * SHORT_S
    assert short.budget.tokens(1) == 256 or took_s >= 0.95 * SHORT_S


def test_the_whole_chunk_is_read_while_nothing_runs():
    machine = Machine(**MACHINES[0])
    machine.stretch(4)
    assert machine.budget.tokens(0) == 256


def test_before_anything_was_measured_a_small_fixed_number_is_read():
    budget = PrefillBudget(256)
    assert budget.tokens(1) == FIRST_TOKENS
    budget.observe(1, 0, 0.01)
    assert budget.tokens(1) == FIRST_TOKENS
    assert PrefillBudget(7).tokens(1) == 7


def test_each_number_of_streams_has_its_own_figure_and_a_new_one_starts_at_the_next_smaller():
    machine = Machine(**MACHINES[0])
    machine.stretch(1)
    alone = machine.budget.tokens(1)
    assert machine.budget.tokens(12) == alone
    machine.stretch(12)
    assert machine.budget.tokens(12) > machine.budget.tokens(1) == alone


def test_the_number_stays_between_a_least_one_and_the_chunk():
    slow = Machine(decode_s=0.004, fixed_s=0.0, token_s=0.1)
    slow.stretch(1)
    assert slow.budget.tokens(1) == LEAST_TOKENS
    fast = Machine(decode_s=0.1, fixed_s=0.0, token_s=0.00001)
    fast.stretch(1)
    assert fast.budget.tokens(1) == 256


def test_a_disturbed_step_changes_the_number_a_little_only():
    machine = Machine(**MACHINES[1])
    machine.stretch(1)
    before = machine.budget.tokens(1)
    machine.budget.observe(1, before, 60.0)
    assert machine.budget.tokens(1) == pytest.approx(before / LARGEST_CHANGE, rel=0.02)


def test_steps_with_less_to_read_than_they_may_do_not_raise_the_number():
    machine = Machine(**MACHINES[0])
    machine.stretch(1, num_waiting=10)
    assert machine.budget.tokens(1) == FIRST_TOKENS


# A decoding step on compiled code beside eager passes for prompts: SmolLM2 in bfloat16 without matrix kernels.
FAST_STEPS = {"decode_s": 0.021, "fixed_s": 0.1, "token_s": 0.0037}


def led(machine: Machine, num_alone: int) -> int:
    """Prompt tokens beside one stream, once a prompt of ``num_alone`` tokens was read with nothing beside it."""
    took_s = machine._decode_s + machine._fixed_s + num_alone * machine._token_s
    machine.budget.observe(0, num_alone, took_s)
    machine.stretch(1, steps=60)
    return machine.budget.tokens(1)


def test_where_no_number_meets_the_multiple_a_step_reads_what_makes_up_for_its_fixed_cost():
    read = led(Machine(**FAST_STEPS), 256)
    # Its tokens take about as long as the rest of the step.
    assert 1.3 * LEAST_TOKENS < read < 2 * LEAST_TOKENS
    took_s = 0.022 + 0.1 + read * 0.0037
    assert took_s < LONGEST_S


def test_a_step_stays_short_however_large_the_fixed_cost_is():
    machine = Machine(decode_s=0.02, fixed_s=0.15, token_s=0.002)
    read = led(machine, 256)
    assert read >= LEAST_TOKENS
    assert 0.021 + 0.15 + read * 0.002 <= 1.05 * LONGEST_S
    # Where even one token takes longer, only the least number is read.
    assert led(Machine(decode_s=0.02, fixed_s=0.5, token_s=0.002), 256) == LEAST_TOKENS


@pytest.mark.parametrize("machine", MACHINES)
def test_where_the_multiple_can_be_met_the_fixed_cost_changes_nothing(machine):
    with_cost = Machine(**machine)
    led(with_cost, 256)
    assert with_cost.stretch(1) == pytest.approx(STRETCH, rel=0.05)


def test_a_short_prompt_alone_says_nothing_of_what_a_token_costs():
    assert led(Machine(**FAST_STEPS), FIRST_TOKENS - 1) == LEAST_TOKENS
