"""``forklift pack``: everything that a machine without a network needs, in one folder or tar file."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress

from app.cli.checking.findings import Finding, counted
from app.cli.packing import PackError
from app.cli.packing.kit import Contents, make_kit
from app.cli.packing.sums import verify
from app.cli.server_connection import CommandError
from app.cli.streams import make_console
from app.core.errors import SettingsError
from app.core.logs.printable import printable
from app.core.settings import load_settings
from app.core.system.interrupts import interruptible

TAR = ".tar"
TRUST = "FORKLIFT_TRUST_REMOTE_CODE"


@click.command("pack")
@click.option("--model", "models", multiple=True, type=click.Path(path_type=Path), help="Model folder; repeatable.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder to make, or a file that ends in .tar.")
@click.option("--with", "extra", multiple=True, help="Another package that is installed here, such as matplotlib.")
@click.option("--extras", default="", help="Forklift's own extras, with commas between, such as grpc,zookeeper.")
@click.option("--no-index", is_flag=True, help="Make all wheels of what is installed; ask no package index.")
@click.option("--no-wheels", is_flag=True, help="Models and sums only, for a machine that has Forklift.")
@click.option("--verify", "kit", type=click.Path(path_type=Path), help="Check a kit instead of making one.")
@click.option("--json", "as_json", is_flag=True, help="What was packed, as JSON.")
def command(
    models: tuple[Path, ...],
    output: Path | None,
    extra: tuple[str, ...],
    extras: str,
    no_index: bool,
    no_wheels: bool,
    kit: Path | None,
    as_json: bool,
) -> None:
    """Make a kit for an air-gapped machine: wheels, models, an install script, an image recipe, check sums.

    Wheels have the versions that are installed here; what the package index has not, or all where it cannot be
    reached, is put together from the installed files. Models are checked first; weights as pickle files are refused.
    Without --model only the embedded demo model is in the kit. The machine must have the same Python and processor.
    A tokenizer whose code lies beside the weights is checked only with FORKLIFT_TRUST_REMOTE_CODE=true.

    Exit codes: 0, 1 where a model has a fault, the kit cannot be made or is not what it was, 2 for wrong usage, 130
    after ctrl-C.
    """
    if kit is not None:
        check_kit(kit)
        return
    if output is None:
        raise click.UsageError("--output is needed (or --verify)")
    if no_wheels and not models:
        raise click.UsageError("--no-wheels without --model leaves nothing to pack")
    for model in models:
        require_sound(model)
    console = make_console(stderr=True)
    contents = Contents(
        list(models), has_wheels=not no_wheels, use_index=not no_index, extra=list(extra), extras=split(extras)
    )
    with interruptible():
        facts = make(output, contents, console)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    console.print(printable(f"packed: {output}"))


def split(names: str) -> list[str]:
    """Names between commas."""
    return [one.strip() for one in names.split(",") if one.strip()]


def require_sound(model: Path) -> None:
    """Raises ``CommandError`` with the first thing that the doctor has against the model."""
    from app.cli.checking.model import check_files, check_tokenizer

    if not model.is_dir():
        raise CommandError(f"{model} is not a folder; a hub id must be downloaded first")
    trust = {name: value for name, value in os.environ.items() if name == TRUST}
    try:
        [plan] = load_settings({**trust, "FORKLIFT_MODEL": str(model)}).plans
    except SettingsError as error:
        raise CommandError(str(error)) from None
    found: list[Finding] = [*check_files(plan)] or [*check_tokenizer(plan, "")]
    for finding in found:
        if finding.level == "fault":
            raise CommandError(finding.text)


def make(output: Path, contents: Contents, console: Console) -> dict[str, object]:
    """Make the kit beside its place and move it there: what stands there is always whole."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise CommandError(f"{output} exists")
    if not output.resolve().parent.is_dir():
        raise CommandError(f"the folder {output.resolve().parent} does not exist")
    try:
        with tempfile.TemporaryDirectory(dir=output.resolve().parent, prefix=".forklift-pack-") as work:
            folder = Path(work) / output.name.removesuffix(TAR)
            folder.mkdir()
            facts = make_kit(folder, contents, lambda line: console.print(printable(line)))
            _deliver(folder, output)
    except PackError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"cannot make {output}: {error.strerror or error}") from None
    return facts


def _deliver(folder: Path, output: Path) -> None:
    if output.suffix != TAR:
        if output.exists():
            output.rmdir()
        folder.rename(output)
        return
    partial = folder.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        archive.add(folder, folder.name)
    partial.rename(output)


def check_kit(kit: Path) -> None:
    """Exits with 1 where anything is not as it was packed."""
    columns = ("{task.description}", BarColumn(), DownloadColumn())
    try:
        console = make_console(stderr=True)
        # Where it shows nothing, it would still end with an empty line.
        is_hidden = not console.is_terminal
        with interruptible(), Progress(*columns, console=console, transient=True, disable=is_hidden) as progress:
            size = sum(path.stat().st_size for path in kit.rglob("*")) if kit.is_dir() else kit.stat().st_size
            task = progress.add_task("verifying", total=size)
            faults = verify(kit, lambda count: progress.advance(task, count))
    except PackError as error:
        raise CommandError(str(error)) from None
    except OSError as error:
        raise CommandError(f"{error.filename or kit}: {error.strerror}") from None
    for fault in faults:
        click.echo(printable(fault))
    click.echo(
        f"{printable(str(kit))}: {'every file is as it was packed' if not faults else counted(len(faults), 'fault')}"
    )
    sys.exit(1 if faults else 0)
