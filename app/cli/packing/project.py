"""Forklift's own wheel: from a clone without any build tool, or from what pip installed."""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

from app import __version__
from app.cli.packing.wheels import Entry, rebuild, write_wheel

NAME = "forklift-serve"
ROOT = Path(__file__).resolve().parents[3]


def build_wheel(folder: Path) -> Path:
    """Write the wheel into ``folder``. Raises ``PackError``."""
    if not (ROOT / "setup.cfg").is_file():
        return rebuild(distribution(NAME), folder)
    stem = f"forklift_serve-{__version__}"
    path = folder / f"{stem}-py3-none-any.whl"
    config = _config()
    info = f"{stem}.dist-info"
    scripts = config["options.entry_points"]["console_scripts"].strip()
    made = {
        f"{info}/METADATA": _metadata(config).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: forklift pack\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}\n".encode(),
    }
    write_wheel(path, _files(config, f"{stem}.data/data"), made)
    return path


def requirements() -> list[str]:
    """What the package needs, as the wheel will say."""
    if (ROOT / "setup.cfg").is_file():
        return _required(_config())
    return [line for line in distribution(NAME).requires or () if "extra ==" not in line]


def _config() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def _required(config: configparser.ConfigParser) -> list[str]:
    lines = config["options"]["install_requires"].splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _metadata(config: configparser.ConfigParser) -> str:
    """PyPA's core metadata, as far as an installer reads it."""
    lines = ["Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {__version__}"]
    lines.append(f"Summary: {config['metadata']['description']}")
    lines.append(f"Requires-Python: {config['options']['python_requires']}")
    return "\n".join([*lines, *(f"Requires-Dist: {one}" for one in _required(config))]) + "\n"


def _files(config: configparser.ConfigParser, data: str) -> Iterator[Entry]:
    for path in (ROOT / "app").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield str(path.relative_to(ROOT)), path
    for target, names in config["options.data_files"].items():
        for name in names.split():
            yield f"{data}/{target}/{name}", ROOT / name
