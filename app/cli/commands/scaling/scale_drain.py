"""``forklift scale drain``: a node gives its replicas to others and gets no new ones."""

from __future__ import annotations

import math
import os

import click

from app.cli.commands.scaling.cluster_options import dashboard_option, make_head, make_node, told_in_one_line, view
from app.cli.commands.scaling.shown_waits import wait_for
from app.cli.server_connection import CommandError
from app.cluster.machine.cluster_view import ClusterView, NodeView
from app.cluster.machine.ray_node import require_ray, run_ray
from app.core.settings import load_settings

REASON = "DRAIN_NODE_REASON_PREEMPTION"


@click.command("drain")
@click.argument("node")
@click.option("--head", "head_address", metavar="HOST:PORT", help="The head; default: that of this machine's node.")
@click.option("--deadline", "deadline_s", type=click.FloatRange(1), help="s; default: DRAIN_TIMEOUT_S and a minute.")
@dashboard_option
def command(node: str, head_address: str | None, deadline_s: float | None, dashboard: str | None) -> None:
    """Drain NODE, an address or id of `forklift scale status`, before its machine is stopped.

    Replicas there finish what they have in hand, others take over; waits until none is left.

    Exit codes: 0 when the node has no replica any more, 1 where it cannot be drained in time, 2 for wrong usage.
    """
    with told_in_one_line():
        require_ray()
        settings = load_settings()
        own = make_node(settings)
        head = make_head(own, dashboard)
        record = own.record()
        address = head_address or (record.address if record is not None else None)
        if address is None:
            raise click.UsageError("--head is needed: no node of forklift scale runs on this machine")
        limit_s = settings.drain_timeout_s + 60 if deadline_s is None else deadline_s
        chosen = choose(view(head), node)
        _drain(chosen, address, limit_s)
        wait_for(
            lambda: not _left(view(head), chosen),
            f"draining {chosen.address}",
            limit_s,
            lambda: f"{_left(view(head), chosen)} replicas left",
        )
    click.echo(f"the node {chosen.address} has no replica any more")


def choose(found: ClusterView, name: str) -> NodeView:
    """The living node of this address, or whose id begins so. Raises ``CommandError``."""
    alive = [one for one in found.nodes if one.state == "ALIVE"]
    chosen = [one for one in alive if one.address == name or one.node_id.startswith(name)]
    if len(chosen) != 1:
        known = ", ".join(one.address for one in alive)
        raise CommandError(f"{len(chosen)} nodes are called {name!r}; there are: {known}")
    return chosen[0]


def _left(found: ClusterView, node: NodeView) -> int:
    return sum(replica.address == node.address for replica in found.replicas)


def _drain(node: NodeView, head_address: str, limit_s: float) -> None:
    arguments = [f"--address={head_address}", f"--node-id={node.node_id}", f"--reason={REASON}"]
    arguments += ["--reason-message=forklift scale drain", f"--deadline-remaining-seconds={math.ceil(limit_s)}"]
    done = run_ray(["drain-node", *arguments], {**os.environ, "RAY_AUTH_MODE": "token"})
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise CommandError(f"Ray does not drain {node.address}: {said[-1] if said else done.returncode}")
