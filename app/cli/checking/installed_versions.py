"""Python and the libraries, against what this version of Forklift supports."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from app.cli.checking.findings import Finding, Findings, Situation
from app.core.versions import untested

DISTRIBUTION = "forklift-serve"
PYTHONS = ((3, 11), (3, 12))


def check(_situation: Situation) -> Findings:
    """Every requirement that is not met; the ranges are those of the installed package."""
    yield from _python()
    try:
        requirements = list(needed())
    except PackageNotFoundError:
        yield Finding("libraries", "fault", f"{DISTRIBUTION} is not installed", "pip install forklift-serve")
        return
    newer = list(untested())
    faults = [fault for one in requirements if one.name not in {n.name for n in newer} and (fault := _fault(one))]
    yield from faults
    for one in newer:
        text = f"{one.name} {one.version} was never tested: the newest that was is {one.newest}"
        yield Finding("libraries", "warning", text, one.advice)
    if not faults:
        shown = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "gunicorn"))
        yield Finding("libraries", "ok", f"{len(requirements)} as required; {shown}")


def needed() -> Iterator[Requirement]:
    """The requirements of the package itself, without its extras."""
    for line in requires(DISTRIBUTION) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _python() -> Findings:
    supported = " or ".join(".".join(map(str, one)) for one in PYTHONS)
    if sys.version_info[:2] in PYTHONS:
        yield Finding("python", "ok", platform.python_version())
    else:
        yield Finding(
            "python", "fault", f"Python {platform.python_version()} is not supported", f"use Python {supported}"
        )


def _fault(requirement: Requirement) -> Finding | None:
    advice = f"pip install '{requirement.name}{requirement.specifier}'"
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding("libraries", "fault", f"{requirement.name} is not installed", advice)
    if requirement.specifier.contains(found, prereleases=True):
        return None
    text = f"{requirement.name} {found} is outside the supported versions {requirement.specifier}"
    return Finding("libraries", "fault", text, advice)
