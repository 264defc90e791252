"""Wheels of installed distributions: downloaded in the same versions, or put together again from what is installed.

A wheel is a zip of what its RECORD lists (PyPA's binary distribution format), and an installer keeps that list. Builds
with a local version such as ``2.13.0+cpu`` are on no public index, so they are always put together.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name, parse_wheel_filename

from app.cli.packing import PackError

DOWNLOAD_LIMIT_S = 1800
# Written by installers, or by Python itself; none belongs to a wheel.
LEFT_OUT = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json")
Entry = tuple[str, Path]


def download(distributions: Mapping[str, Distribution], folder: Path) -> str | None:
    """Try pip's index for all that an index can have. Returns why it could not be used, None where it could."""
    pins = [f"{name}=={one.version}" for name, one in distributions.items() if "+" not in one.version]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "1", "--dest", str(folder), *pins]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"pip took longer than {DOWNLOAD_LIMIT_S} s"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["pip failed"]
    return lines[-1].removeprefix("ERROR:").strip()


def missing(distributions: Mapping[str, Distribution], folder: Path) -> dict[str, Distribution]:
    """Those of which no wheel of the installed version lies in ``folder``."""
    there = {(name, str(version)) for name, version, *_ in map(_parsed, folder.glob("*.whl"))}
    return {name: one for name, one in distributions.items() if (canonicalize_name(name), one.version) not in there}


def _parsed(path: Path) -> tuple[str, str]:
    name, version, *_ = parse_wheel_filename(path.name)
    return name, str(version)


def rebuild(one: Distribution, folder: Path) -> Path:
    """Put an installed distribution together as a wheel. Raises ``PackError`` where its files are not as installed."""
    text = one.read_text("WHEEL")
    if text is None or one.files is None:
        raise PackError(f"{one.name} was not installed from a wheel: pip install --force-reinstall {one.name}")
    path = folder / f"{_escaped(one.name)}-{one.version}-{_tag(text)}.whl"
    write_wheel(path, _entries(one))
    return path


def write_wheel(path: Path, entries: Iterable[Entry], made: Mapping[str, bytes] | None = None) -> None:
    """A zip of files and ``made`` texts with a fresh RECORD, which goes into the one ``.dist-info`` folder."""
    rows: list[tuple[str, str, str]] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, source in sorted(entries):
            rows.append(_add(archive, name, source.read_bytes(), source.stat().st_mode))
        rows += [_add(archive, name, data, 0o644) for name, data in (made or {}).items()]
        [info] = {name.split("/")[0] for name, _, _ in rows if name.split("/")[0].endswith(".dist-info")}
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
        _add(archive, f"{info}/RECORD", text.getvalue().encode(), 0o644)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, mode: int) -> tuple[str, str, str]:
    """The RECORD's row. Every file gets one date, so that the same files make the same wheel."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.external_attr = (0o100000 | (0o755 if mode & 0o100 else 0o644)) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return name, f"sha256={digest}", str(len(data))


def _entries(one: Distribution) -> Iterator[Entry]:
    """Name in the wheel and place on disk of each file that belongs to it."""
    made_scripts = {script.name for script in one.entry_points if script.group.endswith("_scripts")}
    for file in one.files or ():
        source = Path(str(one.locate_file(file)))
        name = _name_in_wheel(one, PurePosixPath(str(file)), made_scripts)
        if name is None:
            continue
        if not source.is_file():
            raise PackError(f"{one.name} is damaged, {file} is gone: pip install --force-reinstall {one.name}")
        yield name, source


def _name_in_wheel(one: Distribution, file: PurePosixPath, made_scripts: set[str]) -> str | None:
    """Where the wheel has ``file``; None for what the installer made.

    Files outside of site-packages are listed as ``../../../bin/x``: scripts, or data of the environment.
    """
    if file.suffix == ".pyc" or (file.parent.suffix == ".dist-info" and file.name in LEFT_OUT):
        return None
    if ".." not in file.parts:
        return str(file)
    kind, *rest = [part for part in file.parts if part != ".."]
    data = f"{_escaped(one.name)}-{one.version}.data"
    if kind in ("bin", "Scripts"):
        return None if rest[-1] in made_scripts else f"{data}/scripts/{'/'.join(rest)}"
    return f"{data}/data/{'/'.join((kind, *rest))}"


def _escaped(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _tag(wheel: str) -> str:
    """The tags of a WHEEL file, as they stand in a file name."""
    tags = [line.partition(":")[2].strip().split("-") for line in wheel.splitlines() if line.startswith("Tag:")]
    return "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
