"""Files of compiled packages that hold no code; without torch."""

from __future__ import annotations

from pathlib import Path


def fake_files(folder: Path) -> dict[str, Path]:
    """Files under the names of a package's."""
    folder.mkdir()
    files = {name: folder / f"made-{name}" for name in ("layers-1.so", "head-1.so")}
    for path in files.values():
        path.write_bytes(path.name.encode() * 100)
    return files
