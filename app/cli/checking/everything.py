"""All checks of this machine, in the order in which an operator reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.cli.checking import device, machine, model, versions
from app.cli.checking.configuration import read_settings
from app.cli.checking.findings import Check, Finding, Situation

CHECKS: tuple[Check, ...] = (
    versions.check,
    machine.check_address,
    machine.check_shared_memory,
    machine.check_files,
    machine.check_disk,
    machine.check_proxies,
    device.check,
    model.check,
)


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """What is found, one by one; ``environ`` is what the server would be started with."""
    settings, findings = read_settings(environ)
    yield from findings
    situation = Situation(environ, settings)
    for check in CHECKS:
        yield from check(situation)
