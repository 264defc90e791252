"""``forklift scale``: the group of its commands."""

from __future__ import annotations

import click

from app.cli.commands.scaling import scale_down, scale_drain, scale_status, scale_up


@click.group("scale")
def command() -> None:
    """Serve on several machines: replicas on Ray Serve, one model and one GPU each, behind one address.

    Needs the extra `scale` (pip install 'forklift-serve[scale]'); see docs/scale.md.
    """


for module in (scale_up, scale_status, scale_drain, scale_down):
    command.add_command(module.command)
