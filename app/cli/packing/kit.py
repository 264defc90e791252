"""Puts a kit together in a folder: wheels, models, texts, sums."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import __version__
from app.cli.checking.findings import gib
from app.cli.packing import PackError
from app.cli.packing.closure import closure
from app.cli.packing.project import build_wheel, requirements
from app.cli.packing.recipes import dockerfile, install_script, readme
from app.cli.packing.sums import write_sums
from app.cli.packing.wheels import download, missing, rebuild

# Formats that run code when they are read, or that are never read here.
WEIGHTS_LEFT_OUT = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx", ".gguf")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Contents:
    """What goes in. ``extra`` are requirements beside Forklift's own, ``extras`` names of its own extras."""

    models: list[Path]
    has_wheels: bool = True
    use_index: bool = True
    extra: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)


def make_kit(folder: Path, contents: Contents, tell: Tell) -> dict[str, Any]:
    """Fill the empty ``folder``; returns what ``kit.json`` says. Raises ``PackError``."""
    names = [name_of(model) for model in contents.models]
    if len(set(names)) < len(names):
        raise PackError("two models have the same folder name")
    require_room(folder, contents.models)
    sources = pack_wheels(folder / "wheels", contents, tell) if contents.has_wheels else {}
    models = {
        name: copy_model(model, folder / "models" / name, tell)
        for name, model in zip(names, contents.models, strict=True)
    }
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    facts = {
        "forklift": __version__,
        "python": python,
        "machine": platform.machine(),
        "packed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "wheels": sources,
        "models": models,
    }
    (folder / "kit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if contents.has_wheels:
        write_texts(folder, python, names, len(sources))
    tell("check sums")
    write_sums(folder, lambda _: None)
    return facts


def pack_wheels(folder: Path, contents: Contents, tell: Tell) -> dict[str, str]:
    """Fill ``folder`` and the requirements beside it; returns where each wheel came from by its name."""
    folder.mkdir(parents=True)
    needed = closure([*requirements(contents.extras), *contents.extra])
    sources = {}
    if contents.use_index:
        tell(f"downloading {len(needed)} wheels")
        if (reason := download(needed, folder)) is not None:
            tell(f"the package index could not be used ({reason}): wheels are made of what is installed")
        sources = {path.name: "index" for path in folder.glob("*.whl")}
    for name, one in missing(needed, folder).items():
        tell(f"{name} {one.version} from what is installed")
        sources[rebuild(one, folder).name] = "installed"
    sources[build_wheel(folder).name] = "this version of Forklift"
    pins = [f"{name}=={one.version}" for name, one in needed.items()]
    text = "\n".join([*pins, f"forklift-serve=={__version__}"]) + "\n"
    (folder.parent / "requirements.txt").write_text(text, encoding="utf-8")
    return dict(sorted(sources.items()))


def write_texts(folder: Path, python: str, models: list[str], num_wheels: int) -> None:
    """The script, the image recipe and the page."""
    script = folder / "install.sh"
    script.write_text(install_script(python, platform.machine(), models), encoding="utf-8")
    script.chmod(0o755)
    (folder / "Dockerfile").write_text(dockerfile(python, models), encoding="utf-8")
    page = readme(__version__, python, platform.machine(), num_wheels, models)
    (folder / "README.md").write_text(page, encoding="utf-8")


def name_of(model: Path) -> str:
    """The folder's own name, which must be fit for a shell and a Dockerfile."""
    name = model.resolve().name
    if not name or any(not (char.isalnum() or char in "._-") for char in name):
        raise PackError(f"the folder name {name!r} has other characters than letters, digits, dot, dash, underscore")
    return name


def copy_model(source: Path, target: Path, tell: Tell) -> dict[str, Any]:
    """Copy what is served, following links; pickled and foreign weights and hidden files stay behind."""
    left_out, num_bytes = [], 0
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if not path.is_file() or any(part.startswith((".", "__pycache__")) for part in name.parts):
            continue
        if path.suffix in WEIGHTS_LEFT_OUT:
            left_out.append(str(name))
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
        num_bytes += path.stat().st_size
    tell(f"{source}: {gib(num_bytes)}" + (f", left out: {', '.join(left_out)}" if left_out else ""))
    return {"bytes": num_bytes, "left_out": left_out}


def require_room(folder: Path, models: list[Path]) -> None:
    """Raises ``PackError`` where the models alone would not fit."""
    needed = sum(path.stat().st_size for model in models for path in model.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PackError(f"the models need {gib(needed)}, {gib(free)} are free in {folder}")
