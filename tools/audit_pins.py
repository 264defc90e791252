"""Compares the installed versions with a local copy of the Python advisory database; needs no network.

Run as ``python -m tools.audit_pins FOLDER``, where FOLDER is a checkout of github.com/pypa/advisory-database.
Checks every distribution of this environment. Exit code 1 where an advisory names an installed version, 2 where the
folder is no such database. What the database does not hold, this cannot find.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click
import yaml
from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Finding:
    """An advisory that names an installed version."""

    package: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    summary: str


def installed() -> dict[str, str]:
    """Versions by normalised name; the part after a plus sign names a build and is left out."""
    found = ((normalised(dist.metadata["Name"]), dist.version.partition("+")[0]) for dist in distributions())
    return dict(sorted(found))


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def advisories(folder: Path, package: str) -> Iterator[dict[str, Any]]:
    """The advisories on a package that were not withdrawn."""
    for path in sorted((folder / "vulns" / package).glob("*.yaml")):
        advisory = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "withdrawn" not in advisory:
            yield advisory


def names_version(advisory: dict[str, Any], package: str, version: str) -> bool:
    """Whether the advisory counts this version among the affected ones, by list or by range."""
    for affected in advisory.get("affected", []):
        if normalised(affected["package"]["name"]) != package:
            continue
        if version in affected.get("versions", []):
            return True
        ranges = [entry for entry in affected.get("ranges", []) if entry["type"] == "ECOSYSTEM"]
        if any(is_inside(Version(version), entry["events"]) for entry in ranges):
            return True
    return False


def is_inside(version: Version, events: list[dict[str, str]]) -> bool:
    """OSV's rule: the last event at or below the version decides."""
    inside = False
    for event in events:
        if "introduced" in event and version >= parsed(event["introduced"]):
            inside = True
        if "fixed" in event and version >= parsed(event["fixed"]):
            inside = False
        if "last_affected" in event and version > parsed(event["last_affected"]):
            inside = False
    return inside


def parsed(text: str) -> Version:
    """A version; one that is none, as old advisories hold, counts as the lowest."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def audit(folder: Path, versions: dict[str, str]) -> list[Finding]:
    """All findings, by package."""
    return [
        Finding(
            package,
            version,
            advisory["id"],
            tuple(advisory.get("aliases", ())),
            " ".join(str(advisory.get("summary") or advisory.get("details", "")).split())[:160],
        )
        for package, version in versions.items()
        for advisory in advisories(folder, package)
        if names_version(advisory, package, version)
    ]


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    if not (folder / "vulns").is_dir():
        click.echo(f"{folder} has no folder vulns: not a checkout of the advisory database", err=True)
        sys.exit(2)
    versions = installed()
    findings = audit(folder, versions)
    for finding in findings:
        names = ", ".join((finding.advisory, *finding.aliases))
        click.echo(f"{finding.package} {finding.version}: {names}: {finding.summary}")
    num_known = sum((folder / "vulns" / package).is_dir() for package in versions)
    click.echo(f"{len(versions)} distributions, {num_known} of them in the database, {len(findings)} findings")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
