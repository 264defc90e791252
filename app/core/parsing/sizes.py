"""Amounts of memory as people write them, and the limits per device made of them. Pure functions."""

from __future__ import annotations

import re

_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
UNITS = {"": 1, **{f"{p}ib": 1024**n for p, n in _POWERS.items()}, **{f"{p}b": 1000**n for p, n in _POWERS.items()}}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")

CPU = "cpu"


def parse_bytes(text: str) -> int:
    """``20GiB``, ``1.5 gb`` or a plain number of bytes. Raises ``ValueError`` with one line."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in UNITS:
        raise ValueError(f"{text.strip()!r} is not a size such as 20GiB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def parse_memory_limits(text: str) -> dict[int | str, int]:
    """Bytes per device from ``0=20GiB,1=20GiB,cpu=30GiB``: a GPU's number within the worker, or ``cpu``.

    Raises ``ValueError`` with one line.
    """
    limits: dict[int | str, int] = {}
    for part in text.split(","):
        name, equals, size = (piece.strip().lower() for piece in part.partition("="))
        if not equals or not (name == CPU or name.isdecimal()):
            raise ValueError(f"{part.strip()!r} is not DEVICE=SIZE with a GPU's number or cpu, such as 0=20GiB")
        device = CPU if name == CPU else int(name)
        if device in limits:
            raise ValueError(f"{name} is named twice")
        limits[device] = parse_bytes(size)
    return limits
