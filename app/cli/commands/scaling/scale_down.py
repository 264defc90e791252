"""``forklift scale down``: the end of this machine's part of a cluster."""

from __future__ import annotations

import click

from app.cli.commands.scaling.cluster_options import make_head, make_node, told_in_one_line
from app.cluster.machine.head import HeadError
from app.cluster.machine.ray_node import RayNode
from app.core.settings import load_settings


@click.command("down")
def command() -> None:
    """End what `forklift scale up` started on this machine; on the head the application first, with its drain.

    Only processes that were started there are ended.

    Exit codes: 0, also where nothing ran, 1 where it could not be ended, 2 for wrong usage.
    """
    with told_in_one_line():
        node = make_node(load_settings())
        record = node.record()
        if record is None:
            click.echo("no node of forklift scale runs on this machine")
            return
        if record.dashboard is not None:
            _remove(node)
        node.stop()
        click.echo(f"the node of {record.address} has ended")


def _remove(node: RayNode) -> None:
    """Replicas answer what they have in hand; a head that is not there any more has none."""
    try:
        make_head(node, None).remove_all()
    except HeadError as error:
        click.echo(f"forklift: {error}; its processes are ended as they are", err=True)
