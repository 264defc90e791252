"""The folder of compiled packages: which are there, which may be loaded, which have to go.

A package is native code and runs with the server's rights. So it is read only where nobody but the server's user (and
the superuser) can have written it, and only whole: its file of facts holds the sums of the others. Knows no torch; any
process. Several may use one folder: a package is made beside its place and moved there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FACTS_FILE = "package.json"
MAX_FACTS_BYTES = 100_000
FOLDER = "compiled"
UNFINISHED = ".making-"
# Of an earlier process that was killed: a compilation takes minutes.
ABANDONED_S = 24 * 3600


class PackageError(Exception):
    """A package cannot be used or kept; the text is one line."""


@dataclass(frozen=True)
class Package:
    """One package as it lies in the folder; ``about`` is what its maker wrote into its file of facts."""

    path: Path
    about: dict[str, Any]
    num_bytes: int
    used_s: float

    @property
    def key(self) -> str:
        return self.path.name


class Store:
    """The packages below ``cache_dir``; of at most ``max_bytes`` together once one more has come."""

    def __init__(self, cache_dir: Path, max_bytes: int):
        self.folder = cache_dir / FOLDER
        self._max_bytes = max_bytes

    def packages(self) -> list[Package]:
        """Those that can be read, the one used last first."""
        found = [package for path in self._paths() if (package := self._read(path)) is not None]
        return sorted(found, key=lambda package: -package.used_s)

    def open(self, key: str) -> Package | None:
        """The package of that name, whole and safe to load; None where there is none. Raises ``PackageError``."""
        if not (self.folder / key).exists():
            return None
        package = self.check(key)
        # A folder that is read-only keeps no order.
        with suppress(OSError):
            os.utime(package.path / FACTS_FILE)
        return package

    def check(self, key: str) -> Package:
        """The package of that name. Raises ``PackageError`` where it is not whole, or not safe to load."""
        path = self.folder / key
        require_private(path)
        package = self._read(path)
        if package is None:
            raise PackageError(f"the package {path} has no readable {FACTS_FILE}")
        for name, wanted in sums_in(package.about).items():
            if not (path / name).is_file() or sum_of(path / name) != wanted:
                raise PackageError(f"{path / name} is not as it was made")
        return package

    def add(self, key: str, files: dict[str, Path], about: dict[str, Any]) -> Package:
        """Keep ``files`` under their names, in the place of a package of that key. Raises ``PackageError``."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_private(self.folder)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=UNFINISHED) as making:
                made = Path(making) / key
                write(made, files, about)
                shutil.rmtree(self.folder / key, ignore_errors=True)
                made.rename(self.folder / key)
        except OSError as error:
            raise PackageError(f"cannot write to {self.folder}: {error.strerror or error}") from None
        self._make_room(key)
        package = self._read(self.folder / key)
        if package is None:
            raise PackageError(f"the package needs more than the {self._max_bytes} bytes that are allowed")
        return package

    def clear(self) -> int:
        """Remove every package; how many bytes that gave back. Raises ``PackageError``."""
        num_bytes = 0
        for path in self._paths():
            num_bytes += size_of(path)
            try:
                shutil.rmtree(path)
            except OSError as error:
                raise PackageError(f"cannot remove {path}: {error.strerror or error}") from None
        return num_bytes

    def _make_room(self, key: str) -> None:
        """The least recently used leave first, the one that has just come last."""
        packages = sorted(self.packages(), key=lambda package: package.key != key)
        total = 0
        for package in packages:
            total += package.num_bytes
            if total > self._max_bytes:
                shutil.rmtree(package.path, ignore_errors=True)
        for path in self._paths(UNFINISHED):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(path, ignore_errors=True)

    def _paths(self, prefix: str = "") -> Iterator[Path]:
        """The folders of packages, or those that begin with ``prefix``."""
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                if path.is_dir() and path.name.startswith(prefix or ".") == bool(prefix):
                    yield path

    def _read(self, path: Path) -> Package | None:
        try:
            facts = path / FACTS_FILE
            if facts.stat().st_size > MAX_FACTS_BYTES:
                return None
            about = json.loads(facts.read_text())
            sums_in(about)
            return Package(path, about, size_of(path), facts.stat().st_mtime)
        except (OSError, ValueError):
            return None


def write(folder: Path, files: dict[str, Path], about: dict[str, Any]) -> None:
    """Copies of ``files`` and the file of facts, in a new ``folder`` that only its owner can write to."""
    folder.mkdir(mode=0o700)
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
        (folder / name).chmod(0o600)
    sums = {name: sum_of(folder / name) for name in files}
    (folder / FACTS_FILE).write_text(json.dumps({**about, "sums": sums}, indent=1, sort_keys=True))
    (folder / FACTS_FILE).chmod(0o600)


def sums_in(about: Any) -> dict[str, str]:
    """The sums of a package's files, by plain names. Raises ``ValueError`` where there are none."""
    sums = about.get("sums") if isinstance(about, dict) else None
    if not isinstance(sums, dict) or not sums:
        raise ValueError("no sums")
    if not all(isinstance(value, str) and name == Path(name).name for name, value in sums.items()):
        raise ValueError("no plain names")
    return sums


def sum_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of the files in ``folder``; those that go meanwhile count as none."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def require_private(path: Path) -> None:
    """Raises ``PackageError`` where another user could have written to ``path``, what it holds, or put it there.

    Folders above it may be shared as ``/tmp`` is, where nobody can move what is another's.
    """
    resolved = path.resolve()
    for one in (resolved, *resolved.rglob("*")):
        _require_own(one, is_above=False)
    for one in resolved.parents:
        _require_own(one, is_above=True)


def _require_own(path: Path, *, is_above: bool) -> None:
    try:
        found = path.lstat()
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None
    if stat.S_ISLNK(found.st_mode):
        raise PackageError(f"{path} is a link: a package is loaded only from files of its own")
    if found.st_uid not in (0, os.geteuid()):
        raise PackageError(f"{path} belongs to another user (uid {found.st_uid}): it would run with this one's rights")
    is_sticky = is_above and bool(found.st_mode & stat.S_ISVTX)
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_sticky:
        raise PackageError(f"{path} can be written to by other users (mode {stat.S_IMODE(found.st_mode):o})")
