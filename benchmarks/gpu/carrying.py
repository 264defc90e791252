"""Brings along what the machine lacks: wheels downloaded here, installed there without a network.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "3.12"
# pip takes each name exactly; 2.39 is the C library of Ubuntu 24.04.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(5, 40)] + ["manylinux2010_x86_64", "manylinux2014_x86_64"]
# There already, in the build that fits the GPU.
PRESENT = ("torch", "transformers", "accelerate", "safetensors")
# What `transformers serve`, the tables, `tests/gpu` and weights of 8 bits need on top of the kit's own requirements.
EXTRA = ("fastapi", "uvicorn", "openai", "rich", "pytest", "hypothesis", "torchao")
MOST_BYTES = 64 * 2**20


def requirements() -> list[str]:
    """The kit's own requirements without what the machine has, and those of the contenders."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    own = [line for line in setup["options"]["install_requires"].splitlines() if line]
    return [line for line in own if line.split()[0].lower() not in PRESENT] + list(EXTRA)


def carry(folder: Path) -> int:
    """Download the wheels for Python 3.12 on x86-64 Linux, their needs included; at most 64 MiB."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--only-binary=:all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp", *platforms]
    command += ["--constraint", str(ROOT / "constraints.txt"), *requirements()]
    if subprocess.run(command).returncode:
        return 1
    wheels = sorted(folder.glob("*.whl"))
    if unwanted := [wheel.name for wheel in wheels if wheel.name.lower().split("-")[0] in PRESENT]:
        print(f"error: {', '.join(unwanted)} must come from the machine", file=sys.stderr)
        return 1
    num_bytes = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{len(wheels)} wheels, {num_bytes / 2**20:.1f} MiB in {folder}")
    if num_bytes > MOST_BYTES:
        print(f"error: more than {MOST_BYTES // 2**20} MiB", file=sys.stderr)
        return 1
    return 0


def run_inside(wheels: Path, work: Path, arguments: list[str]) -> int:
    """Install the wheels into an environment beside this Python's packages, and run the same command there."""
    python = environment(wheels, work / "environment")
    at = arguments.index("--wheels") if "--wheels" in arguments else None
    rest = arguments if at is None else arguments[:at] + arguments[at + 2 :]
    rest = [argument for argument in rest if not argument.startswith("--wheels=")]
    return subprocess.run([str(python), "-m", "benchmarks.gpu", *rest], env=os.environ | {"PYTHONPATH": ""}).returncode


def environment(wheels: Path, folder: Path) -> Path:
    """The Python of an environment that sees this one's packages behind the wheels' own."""
    files = sorted(str(wheel) for wheel in wheels.glob("*.whl"))
    if not files:
        raise SystemExit(f"error: there is no wheel in {wheels}")
    venv.create(folder, clear=True, system_site_packages=True, with_pip=False)
    python = folder / "bin" / "python"
    # An environment made from within another one does not see that one's packages by itself.
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    # Newer than what is there, or the same: never taken away from the outer environment.
    subprocess.run([*command, "--ignore-installed", *files], check=True)
    return python
