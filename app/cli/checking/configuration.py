"""The ``FORKLIFT_`` settings: every one that is unknown or wrong, not only the first."""

from __future__ import annotations

from collections.abc import Mapping

from app.cli.checking.findings import Finding
from app.core.errors import SettingsError
from app.core.settings import PREFIX, Settings, load_settings

ADVICE = "see docs/configuration.md"


def read_settings(environ: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """The settings, and what is wrong with them; wrong ones are left out, so that the rest can be checked too."""
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
    try:
        return load_settings(given), [Finding("settings", "ok", f"{len(given)} given, all known and valid")]
    except SettingsError as error:
        whole = str(error)
    alone = {name: fault for name, value in given.items() if (fault := _fault_of({name: value}))}
    findings = [Finding("settings", "fault", fault, ADVICE) for fault in alone.values()]
    kept = {name: value for name, value in given.items() if name not in alone}
    if (together := _fault_of(kept)) is None:
        return load_settings(kept), findings
    # Each is right by itself, and they do not go together.
    findings.append(Finding("settings", "fault", together if alone else whole, ADVICE))
    return _settings_of_model(kept), findings


def _fault_of(environ: Mapping[str, str]) -> str | None:
    try:
        load_settings(environ)
    except SettingsError as error:
        return str(error)
    return None


def _settings_of_model(environ: Mapping[str, str]) -> Settings:
    """Defaults but for the model and the address, which cannot contradict each other."""
    names = (f"{PREFIX}MODEL", f"{PREFIX}BIND")
    return load_settings({name: environ[name] for name in names if name in environ})
