"""Extras of the package: is what a setting needs installed? Asked by the master, which imports none of it."""

from __future__ import annotations

from importlib.util import find_spec

from app.core.errors import SettingsError

# What of each extra is imported.
MODULES = {"grpc": ("google.protobuf", "grpc", "grpc_health", "grpc_reflection")}


def require_extra(extra: str, setting: str) -> None:
    """Raise ``SettingsError`` with one line where something that ``setting`` needs is not installed."""
    missing = [name for name in MODULES[extra] if not is_there(name)]
    if missing:
        raise SettingsError(
            f"FORKLIFT_{setting} needs the extra {extra}, and {', '.join(missing)} is not installed: pip install "
            f"'forklift-serve[{extra}]'"
        )


def is_there(name: str) -> bool:
    """Whether the module can be imported; it cannot where a package around it is missing."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
