"""Blocks of the KV cache: shared by reference, copied before they are written, given back at once, never short."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import ShuttingDownError
from app.engine.generation.scheduler import Limits
from app.engine.kv.blocks.block_pages import NOBODYS, Pages
from app.engine.kv.blocks.block_rows import PagedRows
from tests.unit.engine.paged_world import PagedWorld

LEFT = ShuttingDownError("left", retry_after_s=1)


def require_sound(pages: Pages) -> None:
    """Every block is free, or referred to as often as it is told."""
    referred = [block for table in pages.tables for block in table]
    free = set(pages._free)
    assert len(free) == len(pages._free) and not free & set(referred) and NOBODYS not in free | set(referred)
    assert len(free) + len(set(referred)) == pages.num_blocks - 1
    assert all(pages._references[block] == referred.count(block) for block in range(1, pages.num_blocks))


def test_a_prefix_is_shared_by_reference_and_its_last_part_copied():
    pages = Pages(3, 12, 4)
    pages.hold(0, 0, 10)
    assert pages.num_free == 8
    [(source, target)] = pages.share(0, 1, 10)
    assert pages.tables[1][:2] == pages.tables[0][:2]
    assert (source, target) == (pages.tables[0][2], pages.tables[1][2]) and source != target
    assert pages.num_free == 7
    assert pages.share(0, 2, 8) == []
    assert pages.num_free == 7
    require_sound(pages)


def test_what_is_shared_is_copied_before_it_is_written():
    pages = Pages(2, 12, 4)
    pages.hold(0, 0, 12)
    pages.share(0, 1, 12)
    pages.keep(1, 6)
    before = list(pages.tables[1])
    assert pages.hold(1, 6, 7) == [(before[1], pages.tables[1][1])]
    assert pages.tables[1][0] == before[0] == pages.tables[0][0]
    assert pages.tables[0][1] == before[1] != pages.tables[1][1]
    assert pages.hold(0, 6, 7) == []
    require_sound(pages)


def test_blocks_go_back_at_once_and_others_keep_theirs():
    pages = Pages(2, 12, 4)
    pages.hold(0, 0, 12)
    pages.share(0, 1, 8)
    pages.keep(0, 0)
    assert pages.num_free == 9 and len(pages.tables[1]) == 2
    assert pages.num_freed([(1, 4)]) == 1
    pages.keep(1, 0)
    assert pages.num_free == 11
    require_sound(pages)


def test_a_row_gets_what_it_claimed_and_no_more_is_promised_than_there_is():
    pages = Pages(2, 6, 4)
    rows = PagedRows(pages, num_extra=0, max_tokens=20)
    assert rows.num_missing(20, 0) == 0
    rows.claim(0, 12, 0)
    assert rows.num_missing(9, 0) == 1
    assert rows.num_missing(8, 0) == 0
    pages.hold(0, 0, 5)
    assert rows.num_missing(9, 0) == 1
    rows.claim(0, 0, 0)
    assert rows.num_missing(9, 0) == 0
    with pytest.raises(MemoryError):
        pages.hold(1, 0, 17)


def limits(**fields: object) -> Limits:
    return Limits(**{"max_running": 4, "chunk_tokens": 12, "context_tokens": 60, "can_mix": True, **fields})


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(1, 40), st.integers(1, 18), st.sampled_from((b"a", b"a", b"b"))),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("fault"), st.sampled_from(("rows", "chunk")), st.integers(0, 3)),
        st.just(("step",)),
    ),
    max_size=50,
)


@settings(max_examples=60)
@given(steps=STEPS, num_blocks=st.integers(18, 60), reuses=st.booleans())
def test_any_schedule_keeps_every_rows_own_entries_and_comes_to_an_end(steps, num_blocks, reuses):
    """As on whole rows (``test_schedule.py``), with too little memory for all rows at once."""
    world = PagedWorld(limits(reuse_prefix=reuses), num_blocks=num_blocks, block_tokens=4)
    shared = list(range(100, 160))
    for step in steps:
        match step:
            case ("arrive", length, num_new, owner):
                at = len(world.jobs)
                prompt = shared[:length] if at % 2 else [at * 1000 + i for i in range(length)]
                world.arrive(prompt, num_new, owner)
            case ("leave", at) if at < len(world.jobs):
                world.jobs[at].cancel(LEFT)
            case ("fault", kind, at):
                world.step(kind, at)
            case _:
                world.step()
        require_sound(world.pages)
    for _ in range(2000):
        if not world.scheduler.has_work:
            break
        world.step()
        require_sound(world.pages)
    assert not world.scheduler.has_work and all(job.has_ended for job in world.jobs)
    world.scheduler.rows.forget_beyond(0)
    assert world.pages.num_free == num_blocks - 1


def test_a_prefix_that_many_share_lies_there_once():
    world = PagedWorld(limits(chunk_tokens=64), num_blocks=40, block_tokens=4)
    prompt = list(range(41))
    world.arrive(prompt, 3, b"a")
    world.step()
    for _ in range(3):
        world.arrive(prompt, 3, b"a")
    world.step()
    tables = world.pages.tables
    assert all(table[:10] == tables[0][:10] for table in tables)
    assert 40 - 1 - world.pages.num_free <= 10 + 4 * 2


def test_what_does_not_fit_waits_for_memory_and_older_prefixes_make_room():
    world = PagedWorld(limits(), num_blocks=20, block_tokens=4)
    first, second = world.arrive(list(range(40)), 10, b"a"), world.arrive(list(range(200, 240)), 10, b"b")
    world.step()
    assert len(world.started) == 1 and world.scheduler.rows.num_free == 3
    while not first.has_ended:
        world.step()
    assert len(world.pages.tables[0]) > 9
    while not second.has_ended:
        world.step()
    assert sum(map(len, world.pages.tables)) < 19
