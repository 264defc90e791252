"""Fixtures: each family's folder, made once per run, and the application on the real engine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.real import RealWorld
from tests.families.folders import FOLDERS

FamilyFolder = Callable[[str], Path]
Serve = Callable[..., RealWorld]


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> FamilyFolder:
    """``family_folder("codegen")`` is that family's folder; nobody may change it."""
    root = tmp_path_factory.mktemp("families")

    def make(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else FOLDERS[family](folder)

    return make


@pytest.fixture
def copy_of(family_folder: FamilyFolder, tmp_path: Path) -> FamilyFolder:
    """A copy that a test may break."""
    return lambda family: shutil.copytree(family_folder(family), tmp_path / family)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers copies code that lies beside weights to a folder of its own before it runs it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.fixture
def serve(family_folder: FamilyFolder) -> Iterator[Serve]:
    """``serve("codegen", dtype="float32")`` starts the application and waits until it is ready."""
    worlds: list[RealWorld] = []

    def start(family: str, **settings: object) -> RealWorld:
        needed = {"trust_remote_code": True} if family == "chatglm" else {}
        worlds.append(RealWorld(family_folder(family), **{"model_name": family, **needed, **settings}))
        return worlds[-1]

    yield start
    for world in worlds:
        world.stop()
