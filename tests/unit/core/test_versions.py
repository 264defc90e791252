"""A version that was never tested is named, once and as a warning; the bounds are those of setup.cfg."""

from __future__ import annotations

from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from structlog.testing import capture_logs

from app.core import versions
from app.core.versions import TESTED, untested
from app.serve.processes import preparation

ROOT = Path(__file__).parents[3]


def of(**found: str):
    def version_of(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    return version_of


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"transformers": "5.24.3", "torch": "2.13.0+cpu"}, []),
        ({"transformers": "5.17.0", "torch": "2.11.0"}, []),
        ({"transformers": "5.25.0", "torch": "2.13.0"}, ["transformers"]),
        ({"transformers": "6.0.0rc1", "torch": "2.15.0+cu130"}, ["transformers", "torch"]),
        ({"torch": "2.14.0.dev20261101"}, ["torch"]),
    ],
)
def test_what_is_newer_than_the_newest_that_was_tested_is_named(found, named):
    assert [one.name for one in untested(of(**found))] == named


def test_the_bounds_are_those_of_the_package():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    requirements = {one.name: one.specifier for one in map(Requirement, filter(None, lines))}
    for name, (oldest, newest) in TESTED.items():
        major, minor = map(int, newest.split("."))
        assert str(requirements[name]) == f"<{major}.{minor + 1},>={oldest}"


def test_the_pinned_versions_are_the_newest_that_were_tested():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and line[0] != "#"
    )
    for name, (_, newest) in TESTED.items():
        assert pins[name].startswith(newest + ".")


def test_the_start_says_so_in_one_warning_each(monkeypatch):
    monkeypatch.setattr(versions, "version", of(transformers="5.99.0", torch="2.13.0"))
    monkeypatch.setattr(preparation, "untested", lambda: untested(versions.version))
    with capture_logs() as lines:
        preparation.name_untested()
    [line] = lines
    assert (line["event"], line["log_level"]) == ("untested_version", "warning")
    assert (line["package"], line["version"], line["newest_tested"]) == ("transformers", "5.99.0", "5.24")
