"""All checks of this machine, in the order in which an operator reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.cli.checking import device, installed_versions, machine, model
from app.cli.checking.configuration import read_settings
from app.cli.checking.extras import grpc_check, registry_check, scale_check
from app.cli.checking.findings import Check, Finding, Findings, Situation

CHECKS: tuple[Check, ...] = (
    installed_versions.check,
    machine.check_address,
    machine.check_shared_memory,
    machine.check_files,
    machine.check_disk,
    machine.check_proxies,
    grpc_check.check,
    registry_check.check,
    scale_check.check,
    device.check,
    model.check,
)


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """What is found, one by one; ``environ`` is what the server would be started with."""
    settings, findings = read_settings(environ)
    yield from findings
    situation = Situation(environ, settings)
    for check in CHECKS:
        yield from _survive(check, situation)


def _survive(check: Check, situation: Situation) -> Findings:
    """A library that cannot be imported, or a driver that fails, is a finding and no end of the examination."""
    try:
        yield from check(situation)
    except Exception as error:
        name = check.__module__.rpartition(".")[2]
        text = f"the check ended with {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        yield Finding(name, "fault", text, "mend what the lines above name, or install Forklift again")
