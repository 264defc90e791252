"""``python -m benchmarks.gpu carry DIR`` here, ``python -m benchmarks.gpu run --wheels DIR`` there."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.gpu import carrying, stages

ROOT = Path(__file__).resolve().parents[2]


def parser(*, is_dry: bool = False) -> argparse.ArgumentParser:
    """``is_dry``: what is not given is as in a dry run."""
    top = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    carry = commands.add_parser("carry", help="download the wheels that a machine with torch does not have")
    carry.add_argument("folder", type=Path)
    run = commands.add_parser("run", help="make models, check parity, measure every contender")
    run.add_argument("--wheels", type=Path, help="folder made by carry; installed into an environment beside torch")
    run.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    run.add_argument("--shapes", default="full", help="full, tiny, or names of shapes with commas")
    run.add_argument("--stages", default="", help="kinds of stages with commas; all without it")
    run.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="folder of the results; default: $OUT")
    run.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="models, environment, results so far")
    run.add_argument("--limit-s", type=float, default=540, help="no stage starts that could end later than this")
    run.add_argument("--stage-limit-s", type=float, help="most seconds of any one stage, instead of its own limit")
    run.add_argument("--resume", type=Path, help="results.json of an earlier run, perhaps elsewhere, to go on from")
    run.add_argument("--dry", action="store_true", help="every stage on the CPU with tiny shapes: does all of it work?")
    run.add_argument("--fresh", action="store_true", help="measure again what an earlier run has measured")
    if is_dry:
        run.set_defaults(**stages.DRY)
    return top


def main() -> int:
    options = parser().parse_args()
    if options.command == "carry":
        return carrying.carry(options.folder)
    if options.dry:
        options = parser(is_dry=True).parse_args()
    if options.output is None:
        parser().error("give --output, or set OUT")
    if options.wheels is not None:
        return carrying.run_inside(options.wheels, options.work, sys.argv[1:])
    return stages.run(stages.Plan.of(options))


if __name__ == "__main__":
    sys.exit(main())
