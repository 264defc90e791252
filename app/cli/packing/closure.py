"""Which installed distributions a set of requirements needs, all the way down."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from app.cli.packing import PackError


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Installed distributions by canonical name, sorted. Raises ``PackError`` for one that is not installed."""
    found: dict[str, Distribution] = {}
    todo = [Requirement(line) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement = todo.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or not _applies(requirement, ("",)):
            continue
        seen.add(key)
        found[key[0]] = installed = _installed(requirement)
        extras = ("", *requirement.extras)
        inner = (Requirement(line) for line in installed.requires or ())
        # What an extra asks for has been judged here; its marker would say no without it.
        todo += [_unmarked(one) for one in inner if _applies(one, extras)]
    return dict(sorted(found.items()))


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _unmarked(requirement: Requirement) -> Requirement:
    requirement.marker = None
    return requirement


def _installed(requirement: Requirement) -> Distribution:
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        raise PackError(f"{requirement.name} is needed and not installed; forklift doctor says what to do") from None
    if not requirement.specifier.contains(found.version, prereleases=True):
        raise PackError(f"{requirement} is needed, {found.version} is installed; forklift doctor says what to do")
    return found
