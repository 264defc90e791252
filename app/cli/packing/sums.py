"""Check sums of a kit: written as ``sha256sum`` writes them, verified for a folder or a tar file."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from app.cli.packing import PackError

SUMS = "SHA256SUMS"
CHUNK_BYTES = 2**20
OnBytes = Callable[[int], None]


def write_sums(folder: Path, on_bytes: OnBytes) -> None:
    """One line for every file below ``folder``."""
    lines = []
    for name, path in files_below(folder):
        with path.open("rb") as file:
            lines.append(f"{digest(file, on_bytes)}  {name}\n")
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def verify(kit: Path, on_bytes: OnBytes) -> list[str]:
    """Every file that is missing, changed or not listed, one line each. Raises ``PackError`` where there is no kit."""
    if not kit.exists():
        raise PackError(f"{kit} does not exist")
    try:
        return _verify(_of_folder(kit, on_bytes) if kit.is_dir() else _of_tar(kit, on_bytes))
    except (tarfile.TarError, OSError, UnicodeDecodeError) as error:
        raise PackError(f"{kit} cannot be read: {error}") from None


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names with forward slashes, in order, without the sums themselves."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / SUMS:
            yield path.relative_to(folder).as_posix(), path


def digest(file: IO[bytes], on_bytes: OnBytes) -> str:
    """The sum of what is read from ``file``."""
    found = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        found.update(piece)
        on_bytes(len(piece))
    return found.hexdigest()


Sums = tuple[str, dict[str, str]]


def _verify(found: Sums) -> list[str]:
    """Compares the text of the sums with the sums of the files."""
    text, sums = found
    listed = {name: known for known, _, name in (line.partition("  ") for line in text.splitlines())}
    faults = [f"{name} is missing" for name in listed if name not in sums]
    faults += [f"{name} is changed" for name in listed if name in sums and sums[name] != listed[name]]
    return sorted(faults + [f"{name} is not part of the kit" for name in sums if name not in listed])


def _of_folder(kit: Path, on_bytes: OnBytes) -> Sums:
    if not (kit / SUMS).is_file():
        raise PackError(f"{kit} is no kit: it has no {SUMS}")
    sums = {}
    for name, path in files_below(kit):
        with path.open("rb") as file:
            sums[name] = digest(file, on_bytes)
    return (kit / SUMS).read_text(encoding="utf-8"), sums


def _of_tar(kit: Path, on_bytes: OnBytes) -> Sums:
    """The names in a tar begin with the kit's own folder."""
    text, sums = None, {}
    with tarfile.open(kit) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            name = member.name.partition("/")[2]
            if name == SUMS:
                text = file.read().decode()
            else:
                sums[name] = digest(file, on_bytes)
    if text is None:
        raise PackError(f"{kit} is no kit: it has no {SUMS}")
    return text, sums
