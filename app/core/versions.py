"""The versions of torch and transformers that the tests ran with, for whoever names one that they did not. Any process.

``setup.cfg`` has the same bounds; a test holds both to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

# Oldest and newest minor version.
TESTED = {"transformers": ("5.17", "5.24"), "torch": ("2.11", "2.13")}


@dataclass(frozen=True)
class Untested:
    """A library that is newer than any that was tried."""

    name: str
    version: str
    newest: str

    @property
    def advice(self) -> str:
        return f"pip install '{self.name}=={self.newest}.*', unless you tried this one"


def untested(version_of: Callable[[str], str] = version) -> Iterator[Untested]:
    """Each library that is newer than what was tested. What is too old, or missing, is told elsewhere."""
    for name, (_, newest) in TESTED.items():
        try:
            found = version_of(name)
        except PackageNotFoundError:
            continue
        if is_newer(found, newest):
            yield Untested(name, found, newest)


def is_newer(found: str, newest: str) -> bool:
    """Whether the minor version of ``found`` lies behind ``newest``."""
    return Version(found).release[:2] > Version(newest).release[:2]
