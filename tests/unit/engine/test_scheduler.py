"""The scheduler alone, without a model: plans over random schedules keep every sequence's entries right."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import ShuttingDownError
from app.core.work.job_events import Finished
from app.engine.generation.plan import ClearRow, CopyRow
from app.engine.generation.scheduler import Limits
from tests.unit.engine.driver import outcome
from tests.unit.engine.planned_world import World

LATE_S = 1e9


BASE = list(range(10, 60))
OTHER = [*BASE[:12], *range(100, 140)]
PROMPTS = [BASE[:5], BASE[:30], BASE, [*BASE[:30], 7, 8, 9], [3], BASE[3:20], BASE[:31], OTHER, OTHER[:40], OTHER[:27]]
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["arrive"] * 4 + ["step"] * 6 + ["cancel", "expire", "rows", "chunk", "refuse", "forget"]),
        st.integers(0, 10_000),
    ),
    max_size=80,
)
LIMITS = st.builds(
    Limits,
    max_running=st.integers(1, 5),
    chunk_tokens=st.sampled_from([3, 7, 64]),
    context_tokens=st.just(80),
    reuse_prefix=st.booleans(),
    can_mix=st.booleans(),
    has_drafts=st.booleans(),
)


@given(ACTIONS, LIMITS, st.sampled_from([None, 0, 1, 4]))
@settings(max_examples=300)
def test_no_schedule_loses_or_mixes_up_anything(actions, limits, num_snapshots):
    if num_snapshots is not None:
        limits = replace(limits, num_snapshots=num_snapshots, has_drafts=False)
    world = World(limits)
    for action, number in actions:
        if action == "arrive":
            job = world.arrive(PROMPTS[number % len(PROMPTS)], 1 + number % 9, b"ab"[number % 2 :][:1])
            job.turn = number % 3
        elif action in ("step", "rows", "chunk"):
            for sequence in world.scheduler.rows.active:
                sequence.proposal = [2, 4, 6][: number % 4]
            world.step(action, number, is_shared=number % 5 == 0)
        elif action == "refuse":
            world.refuses = True
            world.step()
            world.refuses = False
        elif action == "forget":
            world.scheduler.rows.forget_beyond(number % 40)
        elif world.jobs and action == "cancel":
            world.jobs[number % len(world.jobs)].cancel(ShuttingDownError("gone"))
        elif world.jobs:
            world.jobs[number % len(world.jobs)].deadline_s = -1.0
    for _ in range(2000):
        if not world.scheduler.has_work:
            break
        world.step()
    assert not world.scheduler.has_work
    assert world.scheduler.rows.num_free == limits.max_running
    for job in world.jobs:
        _, end = outcome(job)
        is_whole = job.usage.completion_tokens == job.params.max_new_tokens
        assert isinstance(end, Finished) == is_whole


def world_of(**limits: object) -> World:
    return World(Limits(**{"max_running": 3, "chunk_tokens": 64, "context_tokens": 4096, **limits}))


def test_a_prompt_that_is_read_whole_decodes_from_the_next_step_on():
    world = world_of()
    job = world.arrive([5, 6, 7], 4, b"")
    first, second = world.step(), world.step()
    assert [chunk.tokens for chunk in first.plan.chunks] == [[5, 6, 7]] and not first.plan.starts
    assert not second.plan.chunks and second.plan.starts == [3]
    assert job.usage.completion_tokens == 2


def test_one_pass_takes_prompts_and_rows_only_where_the_runner_can():
    for can_mix in (True, False):
        world = world_of(can_mix=can_mix)
        world.arrive([5, 6, 7], 9, b"")
        world.step()
        world.arrive([8, 9], 9, b"")
        assert world.step().plan.is_mixed == can_mix


def test_a_prompt_alone_and_rows_alone_are_no_mixed_pass():
    world = world_of(can_mix=True)
    world.arrive([5, 6, 7], 9, b"")
    assert not world.step().plan.is_mixed
    assert not world.step().plan.is_mixed


def test_drafts_keep_prompts_and_rows_apart():
    world = world_of(can_mix=True, has_drafts=True)
    world.arrive([5, 6, 7], 9, b"")
    world.step()
    world.started[0].proposal = [1, 2]
    world.arrive([8, 9], 9, b"")
    step = world.step()
    assert not step.plan.is_mixed
    assert step.plan.tokens == [[1001, 1, 2]]


def test_no_draft_reaches_behind_the_context():
    world = world_of(has_drafts=True, context_tokens=6)
    world.arrive([5, 6, 7], 3, b"")
    world.step()
    world.started[0].proposal = [1, 2, 3, 4]
    assert world.step().drafts == [[1, 2]]


def test_a_prefix_of_a_busy_row_is_copied_for_its_own_owner_only():
    world = world_of()
    world.arrive(BASE, 30, b"a")
    world.step()
    own, other = world.arrive(BASE, 2, b"a"), world.arrive(BASE, 2, b"b")
    moves = world.step().plan.moves
    assert [move for move in moves if isinstance(move, CopyRow)] == [CopyRow(0, 1, 49)]
    assert own.usage.cached_tokens == 49
    assert other.usage.cached_tokens == 0


def test_states_kept_of_what_a_row_held_before_are_not_those_of_what_it_holds():
    world = world_of(max_running=1, num_snapshots=4)
    for prompt, num_cached in ((OTHER[:27], 0), (BASE, 0), (BASE[:31], 12), (BASE, 31)):
        job = world.arrive(prompt, 1, b"")
        world.step()
        assert job.usage.cached_tokens == num_cached


def test_a_scored_prompt_shares_nothing():
    world = world_of()
    world.arrive(BASE, 1, b"")
    world.step()
    job = world.arrive(BASE, 1, b"", num_prompt_logprobs=0)
    assert world.step().plan.chunks[0].all_logits
    assert job.usage.cached_tokens == 0


def test_a_row_that_may_be_wrong_is_cleared_and_shared_with_nobody():
    world = world_of()
    world.arrive(BASE, 9, b"")
    world.step()
    world.step("rows")
    job = world.arrive(BASE, 1, b"")
    assert world.step().plan.moves[0] == ClearRow(0)
    assert job.usage.cached_tokens == 0


def test_what_is_over_its_time_is_planned_no_more():
    world = world_of()
    job = world.arrive([5, 6], 9, b"")
    job.deadline_s = 10.0
    world.step()
    assert not world.scheduler.schedule(LATE_S).running
    assert job.has_ended
    assert not world.scheduler.has_work


def test_all_jobs_fail_together_those_that_wait_too():
    world = world_of(max_running=1)
    jobs = [world.arrive([5, 6], 9, b"") for _ in range(3)]
    world.step()
    world.scheduler.fail_all(ShuttingDownError("leaving"))
    assert all(job.has_ended for job in jobs)
    assert not world.scheduler.has_work


def test_the_scheduler_needs_no_torch():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'numpy')))\n"
        "import app.engine.generation.scheduler as s; print(s.Scheduler.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "Scheduler", ran.stderr
