"""How many replicas, as an option says it: ``4``, or ``1-4`` for as many as the load wants."""

from __future__ import annotations

import re

import click

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


class ReplicaRange(click.ParamType[tuple[int, int]]):
    """The least and the most."""

    name = "N or N-M"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        found = _RANGE.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no number of replicas such as 4 or 1-4", param, ctx)
        least = int(found[1])
        most = int(found[2] or least)
        if not 1 <= least <= most:
            self.fail(f"{value!r}: at least 1, and no more than the most", param, ctx)
        return least, most
