"""Packages are kept within bounds, and only whole ones are opened that nobody else can have written."""

from __future__ import annotations

import json
import os
import time

import pytest

from app.models.compiled.package_store import FACTS_FILE, PackageError, Store
from tests.compiled_files import fake_files

PACKAGE_BYTES = 4_000


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "cache", 10 * PACKAGE_BYTES)


def added(store, tmp_path, key="one"):
    return store.add(key, fake_files(tmp_path / f"files-{key}"), {"model": key})


def test_what_was_added_is_opened_with_what_was_said_of_it(store, tmp_path):
    package = added(store, tmp_path)
    opened = store.open("one")
    assert opened is not None
    assert (opened.path, opened.about["model"], opened.num_bytes) == (package.path, "one", package.num_bytes)
    assert [one.key for one in store.packages()] == ["one"]
    assert store.open("two") is None


def test_nobody_else_can_write_to_what_was_made(store, tmp_path):
    package = added(store, tmp_path)
    modes = [path.stat().st_mode & 0o777 for path in (store.folder, package.path, *package.path.iterdir())]
    assert all(not mode & 0o077 for mode in modes)


@pytest.mark.parametrize("damage", [b"", b"made"], ids=["empty", "half"])
def test_a_package_with_a_damaged_file_is_not_opened(store, tmp_path, damage):
    package = added(store, tmp_path)
    (package.path / "head-1.so").write_bytes(damage)
    with pytest.raises(PackageError, match=r"head-1\.so is not as it was made"):
        store.open("one")


def test_a_package_with_a_file_too_few_is_not_opened(store, tmp_path):
    (added(store, tmp_path).path / "layers-1.so").unlink()
    with pytest.raises(PackageError, match=r"layers-1\.so is not as it was made"):
        store.open("one")


@pytest.mark.parametrize(
    "facts", ["", "[]", "{}", '{"sums": {}}', '{"sums": {"../one": "0"}}', '{"sums": {"a": 1}}', "[" * 200_000]
)
def test_a_package_without_readable_facts_is_not_opened_and_not_listed(store, tmp_path, facts):
    (added(store, tmp_path).path / FACTS_FILE).write_text(facts)
    with pytest.raises(PackageError, match="has no readable"):
        store.open("one")
    assert store.packages() == []


@pytest.mark.parametrize("place", ["cache", "cache/compiled", "cache/compiled/one", "cache/compiled/one/head-1.so"])
@pytest.mark.parametrize("mode", [0o020, 0o002])
def test_a_place_that_others_can_write_to_is_not_trusted(store, tmp_path, place, mode):
    added(store, tmp_path)
    path = tmp_path / place
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(PackageError, match="can be written to by other users"):
        store.open("one")


def test_a_shared_folder_above_is_trusted_only_where_nobody_can_move_what_is_anothers(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    store = Store(shared / "cache", 10 * PACKAGE_BYTES)
    added(store, tmp_path)
    assert store.open("one") is not None
    shared.chmod(0o777)
    with pytest.raises(PackageError, match="can be written to by other users"):
        store.open("one")


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can give files away")
@pytest.mark.parametrize("place", ["cache", "cache/compiled/one", "cache/compiled/one/layers-1.so"])
def test_what_belongs_to_another_user_is_not_trusted(store, tmp_path, place):
    added(store, tmp_path)
    os.chown(tmp_path / place, 12345, -1)
    with pytest.raises(PackageError, match="belongs to another user"):
        store.open("one")


def test_a_link_in_a_package_is_not_followed(store, tmp_path):
    package = added(store, tmp_path)
    (package.path / "head-1.so").rename(tmp_path / "elsewhere.so")
    (package.path / "head-1.so").symlink_to(tmp_path / "elsewhere.so")
    with pytest.raises(PackageError, match="is a link"):
        store.open("one")


def test_a_folder_that_others_can_write_to_gets_no_package(tmp_path):
    store = Store(tmp_path / "open", 10 * PACKAGE_BYTES)
    store.folder.mkdir(parents=True)
    store.folder.chmod(0o777)
    with pytest.raises(PackageError, match="can be written to by other users"):
        added(store, tmp_path)


def test_the_least_recently_used_leave_first(tmp_path):
    size = added(Store(tmp_path / "first", 10**6), tmp_path, "size").num_bytes
    store = Store(tmp_path / "cache", 2 * size + size // 2)
    for age, key in ((30, "aa"), (20, "bb")):
        package = added(store, tmp_path, key)
        then = time.time() - age
        os.utime(package.path / FACTS_FILE, (then, then))
    assert store.open("aa") is not None
    added(store, tmp_path, "cc")
    assert {package.key for package in store.packages()} == {"aa", "cc"}


def test_a_package_above_the_bound_is_an_error_and_leaves_nothing(tmp_path):
    store = Store(tmp_path / "cache", 10)
    with pytest.raises(PackageError, match="more than the 10 bytes"):
        added(store, tmp_path)
    assert list(store.folder.iterdir()) == []


def test_a_second_package_of_a_key_takes_the_place_of_the_first(store, tmp_path):
    added(store, tmp_path)
    store.add("one", fake_files(tmp_path / "again"), {"model": "again"})
    assert [package.about["model"] for package in store.packages()] == ["again"]


def test_what_a_killed_maker_left_is_no_package_and_goes_after_a_day(store, tmp_path):
    added(store, tmp_path)
    left = store.folder / ".making-left"
    left.mkdir()
    assert [package.key for package in store.packages()] == ["one"]
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(left, (long_ago, long_ago))
    added(store, tmp_path, "two")
    assert not left.exists()


def test_clearing_removes_every_package_and_says_how_much(store, tmp_path):
    sizes = [added(store, tmp_path, key).num_bytes for key in ("one", "two")]
    assert store.clear() == sum(sizes)
    assert store.packages() == []
    assert store.clear() == 0


def test_a_disk_that_is_full_is_one_line(store, tmp_path, monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(PackageError, match=r"cannot write to .*: No space left on device"):
        added(store, tmp_path)
    assert store.packages() == []


def test_facts_are_kept_as_json(store, tmp_path):
    package = added(store, tmp_path)
    assert set(json.loads((package.path / FACTS_FILE).read_text())["sums"]) == {"layers-1.so", "head-1.so"}
