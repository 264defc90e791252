"""What a check says, and what every check is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from app.core.settings import Settings

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One line about one thing. A fault stops the server from starting or serving as it should; a warning does not."""

    check: str
    level: Level
    text: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"check": self.check, "level": self.level, "text": self.text, "advice": self.advice}


@dataclass(frozen=True)
class Situation:
    """The environment that the server would be started in, and the settings that it makes."""

    environ: Mapping[str, str]
    settings: Settings


Findings: TypeAlias = Iterator[Finding]
Check: TypeAlias = Callable[[Situation], Findings]


def gib(num_bytes: float) -> str:
    """Bytes for people."""
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.1f} MiB"


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
