"""``forklift compile``: the decode step of a model as native code, made before a server needs it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path

import click

from app.cli.server_connection import CommandError
from app.cli.streams import make_console
from app.core.errors import ForkliftError
from app.core.logs.logging import configure_logging
from app.core.logs.printable import printable
from app.core.settings import Settings, load_settings
from app.core.system.interrupts import interruptible
from app.core.system.openmp import SPIN_ENVIRONMENT


@click.command("compile")
@click.argument("model", required=False)
@click.option("--dtype", type=click.Choice(["auto", "float32", "float16", "bfloat16"]), help="Default: FORKLIFT_DTYPE.")
@click.option("--json", "as_json", is_flag=True, help="What was made, as JSON.")
def command(model: str | None, dtype: str | None, as_json: bool) -> None:
    """Compile the passes of MODEL, a folder or hub id, for this machine; default: FORKLIFT_MODEL.

    Needs a C++ compiler, and takes seconds beside the load where the code is C++ of Forklift's own (x86-64 with AVX2;
    int4 not), some minutes of a core else. The package goes to FORKLIFT_CACHE_DIR, from where servers with the same
    torch, the same Forklift and the same kind of processor load it: for this model, and for any other of the same
    shape, as it holds no weights. It is used for those sizes of a pass that it saves 5% or more of.

    Exit codes: 0, 1 where the model cannot be compiled, 2 for wrong usage, 130 after ctrl-C.
    """
    console = make_console(stderr=True)
    given = {"FORKLIFT_MODEL": model, "FORKLIFT_DTYPE": dtype}
    started_s = time.monotonic()
    with interruptible(), tempfile.TemporaryDirectory(prefix="forklift-compile-") as scratch:
        prepare_process(Path(scratch))
        from app.engine.loading.compiling.packaging import make_package
        from app.models.compiled.package_store import PackageError

        try:
            settings = settings_of({name: value for name, value in given.items() if value})
            package = make_package(settings, lambda line: console.print(printable(line)))
        except (ForkliftError, PackageError) as error:
            raise CommandError(str(error)) from None
    facts = {
        "path": str(package.path),
        "bytes": package.num_bytes,
        "seconds": round(time.monotonic() - started_s, 1),
        "eager_ms": package.about["eager_ms"],
        "compiled_ms": package.about["compiled_ms"],
        "steps_ms": package.about["steps_ms"],
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    told = f"{package.num_bytes / 1e6:.1f} MB in {facts['seconds']} s; {package.about['measured']} takes"
    took = f"{facts['compiled_ms']:.1f} ms, eager {facts['eager_ms']:.1f} ms"
    click.echo(printable(f"{facts['path']}: {told} {took}"))


def prepare_process(scratch: Path) -> None:
    """Before torch is imported: threads that wait as a server's do, and inductor's files in ``scratch``.

    Its own default is a folder of a known name below /tmp.
    """
    os.environ.update({**SPIN_ENVIRONMENT, "TORCHINDUCTOR_CACHE_DIR": str(scratch)})
    configure_logging("console")


def settings_of(given: dict[str, str]) -> Settings:
    """The environment's settings with what was ``given``, for the one model."""
    return load_settings({**os.environ, **given})
