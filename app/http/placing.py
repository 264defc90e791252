"""A request's place on the board: taken before any work, moved by its first job. HTTP threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from flask import request

from app.core.jobs import BaseJob
from app.http.limits import TIMEOUT_HEADER, Deadlines
from app.serve.admission import Place
from app.serve.context import WorkerContext


@contextmanager
def placed(context: WorkerContext) -> Iterator[tuple[Place, Deadlines]]:
    """A place, which is free again where the block raises; else whoever took it over gives it back."""
    deadlines = Deadlines.from_now(context.settings, request.headers.get(TIMEOUT_HEADER))
    place = context.admission.enter(deadlines.own_s)
    try:
        yield place, deadlines
    except BaseException:
        place.release()
        raise


def first_start(place: Place, jobs: Sequence[BaseJob]) -> Callable[[], None]:
    """For ``on_started``: the first job that starts moves the place; the others may then wait for it."""
    has_started = False

    def start() -> None:
        nonlocal has_started
        if has_started:
            return
        has_started = True
        place.start()
        for job in jobs:
            if job.timings.started_s is None:
                job.queue_deadline_s = float("inf")

    return start
