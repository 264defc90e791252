"""Writes deploy/ray/forklift.yaml as ``forklift scale up`` would deploy it; a test checks that it is up to date.

Run as ``python -m tools.ray_config``.
"""

from __future__ import annotations

from pathlib import Path

from app.cluster.config_file import as_yaml
from app.cluster.scale_plan import Entrance, Replicas, ScalePlan
from app.core.settings import load_settings

FILE = Path(__file__).resolve().parents[1] / "deploy" / "ray" / "forklift.yaml"
HEAD = """\
# Serve's config file for a Ray cluster that runs already: serve deploy forklift.yaml
# Written by python -m tools.ray_config; another one: forklift scale up --print-config with your FORKLIFT_ settings.
# With FORKLIFT_API_KEYS, which each node has in its environment, have it printed: `keys` is their fingerprint.
# Every Ray process needs this in its environment (docs/scale.md says why):
"""
EXAMPLE = {"FORKLIFT_MODEL": "/models/model", "FORKLIFT_MAX_BATCH_SIZE": "8", "FORKLIFT_MAX_QUEUE": "32"}


def page() -> str:
    """The whole file."""
    plan = ScalePlan(load_settings(EXAMPLE), Replicas(1, 4, num_cpus=4.0, num_gpus=1.0), Entrance())
    variables = "".join(f"#   {name}={value}\n" for name, value in plan.environment().items())
    return HEAD + variables + as_yaml(plan.config())


def main() -> None:
    """Write the file."""
    FILE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
