"""Jobs that were taken but have not started: requests take turns, each of them first come first served.

Inference thread only.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from app.core.errors import RequestError
from app.core.work.jobs import BaseJob

AnyJob = TypeVar("AnyJob", bound=BaseJob)


class WaitingJobs(Generic[AnyJob]):
    """Lines of jobs, one for each request, and whose turn it is.

    A request of many jobs starts one and then lets the others' start; those that are cancelled or too late leave
    without having started.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[object, deque[AnyJob]] = OrderedDict()
        self._num_jobs = 0

    def __len__(self) -> int:
        return self._num_jobs

    def __iter__(self) -> Iterator[AnyJob]:
        return (job for line in self._lines.values() for job in line)

    @property
    def first(self) -> AnyJob:
        """The one that is next; there must be one."""
        return next(iter(self))

    def add(self, job: AnyJob) -> None:
        self._lines.setdefault(job.turn, deque()).append(job)
        self._num_jobs += 1

    def start_next(self) -> AnyJob:
        """Take the next job out of its line and start it; its request is then the last. There must be one."""
        return self._start(*next(iter(self._lines.items())))

    def start_first(self, fits: Callable[[AnyJob], bool]) -> AnyJob | None:
        """The same for the first request whose next job ``fits``; None where there is none."""
        found = next(((turn, line) for turn, line in self._lines.items() if fits(line[0])), None)
        return None if found is None else self._start(*found)

    def _start(self, turn: object, line: deque[AnyJob]) -> AnyJob:
        job = line.popleft()
        self._num_jobs -= 1
        if line:
            self._lines.move_to_end(turn)
        else:
            del self._lines[turn]
        job.start()
        return job

    def sweep(self, now_s: float) -> None:
        """End every job that must not start any more."""
        causes = [(job, cause) for job in self if (cause := job.stop_cause(now_s)) is not None]
        if not causes:
            return
        ended = {job for job, _ in causes}
        for turn, line in list(self._lines.items()):
            self._lines[turn] = deque(job for job in line if job not in ended)
            if not self._lines[turn]:
                del self._lines[turn]
        self._num_jobs -= len(ended)
        for job, cause in causes:
            job.fail(cause)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        jobs = list(self)
        self._lines.clear()
        self._num_jobs = 0
        for job in jobs:
            job.fail(error)
