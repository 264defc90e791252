"""Tokens that were drawn and not read yet: the pass behind them may be launched meanwhile.

Inference thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from app.core.work.jobs import Job
from app.engine.sampling.sampler import Drawn

AnyRow = TypeVar("AnyRow")


@dataclass
class Pending(Generic[AnyRow]):
    """The next tokens of ``sequences``, which were in rows 0, 1, .. when their pass was launched.

    ``drawn`` None: that pass failed. ``is_last``: rows have changed hands since; nothing may be launched behind it.
    """

    sequences: list[AnyRow]
    jobs: list[Job]
    drawn: Drawn | None
    is_last: bool = False
