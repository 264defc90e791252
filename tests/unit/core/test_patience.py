"""Which of its two time limits a request has passed."""

from __future__ import annotations

import pytest

from app.core.errors import QueueTimeoutError, RequestTimeoutError
from app.core.patience import overdue
from app.core.work.jobs import BaseJob

INFINITE = float("inf")


@pytest.mark.parametrize(
    ("deadline_s", "queue_deadline_s", "kind"),
    [
        (INFINITE, INFINITE, type(None)),
        (10.5, 10.5, type(None)),
        (10.0, INFINITE, RequestTimeoutError),
        (INFINITE, 10.0, QueueTimeoutError),
        (10.0, 9.0, RequestTimeoutError),
    ],
)
def test_a_request_is_late_from_its_deadline_on_and_the_whole_one_counts_first(deadline_s, queue_deadline_s, kind):
    assert type(overdue(10.0, deadline_s, queue_deadline_s)) is kind


def test_a_job_that_has_been_started_is_no_longer_late_for_its_start():
    job = BaseJob("id", [1], queue_deadline_s=10.0, deadline_s=20.0)
    assert isinstance(job.stop_cause(10.0), QueueTimeoutError)
    job.start()
    assert job.stop_cause(10.0) is None
    assert isinstance(job.stop_cause(20.0), RequestTimeoutError)
