"""Jobs that were taken but have not started, first come first served. Inference thread only."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from app.core.errors import RequestError
from app.core.jobs import BaseJob

AnyJob = TypeVar("AnyJob", bound=BaseJob)


class WaitingJobs(Generic[AnyJob]):
    """A line of jobs; those that are cancelled or too late leave it without having started."""

    def __init__(self) -> None:
        self._jobs: deque[AnyJob] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def first(self) -> AnyJob:
        """The one that came first; there must be one."""
        return self._jobs[0]

    def add(self, job: AnyJob) -> None:
        self._jobs.append(job)

    def start_next(self) -> AnyJob:
        """Take the first job out of the line and start it."""
        job = self._jobs.popleft()
        job.start()
        return job

    def sweep(self, now_s: float) -> None:
        """End every job that must not start any more."""
        if all(job.stop_cause(now_s) is None for job in self._jobs):
            return
        jobs, self._jobs = self._jobs, deque()
        for job in jobs:
            cause = job.stop_cause(now_s)
            if cause is None:
                self._jobs.append(job)
            else:
                job.fail(cause)

    def fail_all(self, error: RequestError) -> None:
        """End every job."""
        while self._jobs:
            self._jobs.popleft().fail(error)
