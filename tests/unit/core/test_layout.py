"""Every module can be found by its name, and every folder be read at a glance."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[3] / "app"
NAMELESS = {"__init__", "__main__"}
MOST_ENTRIES = 12
# Folders with more, and why their files stay together.
LARGER = {
    "http/schemas": "one file per group of request bodies; all are read the same way",
}


def entries_of(folder: Path) -> list[Path]:
    """Modules and folders with modules, without what every package has."""
    modules = [path for path in folder.glob("*.py") if path.stem not in NAMELESS]
    return modules + [path for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.py"))]


FOLDERS = [APP, *(path.parent for path in sorted(APP.rglob("__init__.py")) if path.parent != APP)]


def test_no_two_modules_have_one_name():
    found = defaultdict(list)
    for path in APP.rglob("*.py"):
        if path.stem not in NAMELESS:
            found[path.stem].append(str(path.relative_to(APP)))
    assert len(found) > 200
    assert not {name: paths for name, paths in found.items() if len(paths) > 1}


def test_no_two_folders_have_one_name():
    names = [folder.name for folder in FOLDERS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(APP)))
def test_a_folder_holds_few_entries(folder):
    num_entries = len(entries_of(folder))
    assert (num_entries > MOST_ENTRIES) == (str(folder.relative_to(APP)) in LARGER)
