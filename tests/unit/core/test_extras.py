"""What a setting needs and is not installed stops the start with one line that names the extra."""

from __future__ import annotations

import pytest

from app.core.errors import SettingsError
from app.core.system import extras


def test_what_is_installed_is_enough(monkeypatch):
    monkeypatch.setitem(extras.MODULES, "grpc", ("json", "os.path"))
    extras.require_extra("grpc", "GRPC_BIND")


@pytest.mark.parametrize("name", ["no_such_module", "no_such.module", "json.no_such"])
def test_what_is_missing_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setitem(extras.MODULES, "grpc", ("json", name))
    line = (
        rf"FORKLIFT_GRPC_BIND needs the extra grpc, and {name} is not installed: pip install 'forklift-serve\[grpc\]'"
    )
    with pytest.raises(SettingsError, match=f"^{line}$"):
        extras.require_extra("grpc", "GRPC_BIND")
