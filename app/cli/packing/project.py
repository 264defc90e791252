"""Forklift's own wheel: from a clone without any build tool, or from what pip installed."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path

from app import __version__
from app.cli.packing import PackError
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


def requirements(extras: Sequence[str] = ()) -> list[str]:
    """What the package needs, with these of its extras. Raises ``PackError`` for one that it does not have."""
    if (ROOT / "setup.cfg").is_file():
        config = _config()
        known = set(config["options.extras_require"])
        needed = [*_required(config), *(line for one in extras if one in known for line in _extra(config, one))]
    else:
        installed = distribution(NAME)
        known = set(installed.metadata.get_all("Provides-Extra") or ())
        lines = installed.requires or ()
        needed = [line for line in lines if "extra ==" not in line]
        needed += [line.partition(";")[0] for one in extras for line in lines if _is_of(line, one)]
    if unknown := [one for one in extras if one not in known]:
        raise PackError(f"there is no extra {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return needed


def _is_of(line: str, extra: str) -> bool:
    return bool(re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", line))


def _extra(config: configparser.ConfigParser, name: str) -> list[str]:
    return _lines(config["options.extras_require"][name])


def _config() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def _required(config: configparser.ConfigParser) -> list[str]:
    return _lines(config["options"]["install_requires"])


def _lines(text: str) -> list[str]:
    lines = text.splitlines()
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
