"""The offline audit: which installed versions an advisory names."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from packaging.version import Version

from tools.audit_pins import audit, is_inside, main

ADVISORY = """
id: PYSEC-2024-1
aliases: [CVE-2024-1]
summary: It falls over.
affected:
- package: {ecosystem: PyPI, name: Some_Package}
  ranges:
  - type: GIT
    events: [{introduced: "0"}]
  - type: ECOSYSTEM
    events: [{introduced: "1.0"}, {fixed: "1.4"}, {introduced: "2.0"}, {fixed: 2.0.3}]
  versions: [0.9-special]
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    folder = tmp_path / "vulns" / "some-package"
    folder.mkdir(parents=True)
    (folder / "PYSEC-2024-1.yaml").write_text(ADVISORY)
    (folder / "PYSEC-2024-2.yaml").write_text(ADVISORY + "withdrawn: 2024-05-01T00:00:00Z\n")
    return tmp_path


@pytest.mark.parametrize(
    ("version", "is_named"),
    [("0.9", False), ("1.0", True), ("1.3.9", True), ("1.4", False), ("2.0.2", True), ("2.0.3", False), ("3", False)],
)
def test_a_version_is_named_by_the_ranges_of_advisories_that_stand(database, version, is_named):
    found = audit(database, {"some-package": version, "other": "1.0"})
    assert [finding.advisory for finding in found] == ["PYSEC-2024-1"] * is_named


def test_the_last_affected_version_is_affected():
    events = [{"introduced": "0"}, {"last_affected": "2.0"}]
    assert is_inside(Version("2.0"), events)
    assert not is_inside(Version("2.0.1"), events)


def test_a_finding_is_an_exit_code_and_a_line(database, monkeypatch):
    monkeypatch.setattr("tools.audit_pins.installed", lambda: {"some-package": "1.2"})
    result = CliRunner().invoke(main, [str(database)])
    assert result.exit_code == 1
    assert "some-package 1.2: PYSEC-2024-1, CVE-2024-1: It falls over." in result.output


def test_nothing_found_is_exit_code_0(database, monkeypatch):
    monkeypatch.setattr("tools.audit_pins.installed", lambda: {"some-package": "1.4", "other": "1"})
    result = CliRunner().invoke(main, [str(database)])
    assert (result.exit_code, result.output) == (0, "2 distributions, 1 of them in the database, 0 findings\n")


def test_a_folder_that_is_no_database_is_not_taken_for_a_clean_one(tmp_path):
    assert CliRunner().invoke(main, [str(tmp_path)]).exit_code == 2
