"""``forklift scale up``: this machine as the head of a cluster, or as a node of one; progress until replicas serve."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from app.cli.commands.scaling.cluster_options import make_head, make_node, told_in_one_line, view
from app.cli.commands.scaling.replica_range import ReplicaRange
from app.cli.commands.scaling.shown_waits import wait_for
from app.cli.server_connection import CommandError
from app.cluster.machine.head import Head
from app.cluster.machine.node_start import NodeOptions, head_arguments, joining_arguments, node_environment
from app.cluster.machine.ray_node import RayNode, require_ray
from app.cluster.scale_error import ScaleError
from app.cluster.scale_plan import Entrance, Replicas, ScalePlan
from app.cluster.tokens import find_token, make_token
from app.core.errors import StartError
from app.core.settings import Settings, load_settings
from app.models.folder.early import check_models
from app.serve.processes.gpus import gpu_labels

if TYPE_CHECKING:
    from app.cluster.machine.cluster_view import ClusterView

DEPLOY_LIMIT_S = 180.0
NUM_STARTS = 3
Proxy = Literal["haproxy", "python"]
Proxies = Literal["every-node", "head"]


@click.command("up")
@click.option("--join", metavar="HOST:PORT", help="Join the cluster of this head instead of being one.")
@click.option("--replicas", type=ReplicaRange(), default="1", show_default=True, help="How many: 4, or 1-4 by load.")
@click.option("--cpus", type=click.FloatRange(0), default=1.0, show_default=True, help="CPUs of each replica.")
@click.option("--gpus", type=click.FloatRange(0), help="GPUs of each replica; default: as the settings say, 0 on CPU.")
@click.option("--address", metavar="IP", help="This machine's address in the cluster; default: Ray finds it.")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address that the proxies listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port of the proxies.")
@click.option(
    "--proxy",
    type=click.Choice(["haproxy", "python"]),
    default="haproxy",
    show_default=True,
    help="Which stand in front.",
)
@click.option(
    "--proxies",
    type=click.Choice(["every-node", "head"]),
    default="every-node",
    show_default=True,
    help="Where they are: on every node with a replica, or on the head alone.",
)
@click.option("--affinity", metavar="HEADER", help="Requests with the same value in this header go to one replica.")
@click.option("--head-port", type=click.IntRange(1, 65535), default=6379, show_default=True, help="Port of the head.")
@click.option("--dashboard-port", type=click.IntRange(1, 65535), default=8265, show_default=True, help="Its interface.")
@click.option("--metrics-port", type=click.IntRange(1, 65436), default=9500, show_default=True, help="First of 100.")
@click.option("--node-cpus", type=click.IntRange(0), help="CPUs that this machine gives; default: all.")
@click.option("--node-gpus", type=click.IntRange(0), help="GPUs that this machine gives; default: all.")
@click.option("--storage", metavar="FOLDER", help="Where the head keeps its state; default: in FORKLIFT_CACHE_DIR.")
@click.option("--object-store-bytes", type=click.IntRange(78_643_200), default=100_000_000, help="Ray's shared memory.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=1800.0, show_default=True, help="s.")
@click.option("--print-config", is_flag=True, help="Print Serve's config file for a cluster that runs, and end.")
def command(
    join: str | None,
    replicas: tuple[int, int],
    cpus: float,
    gpus: float | None,
    address: str | None,
    host: str,
    port: int,
    proxy: Proxy,
    proxies: Proxies,
    affinity: str | None,
    head_port: int,
    dashboard_port: int,
    metrics_port: int,
    node_cpus: int | None,
    node_gpus: int | None,
    storage: str | None,
    object_store_bytes: int,
    timeout_s: float,
    print_config: bool,
) -> None:
    """Bring up a cluster from the FORKLIFT_ settings, and wait until its replicas serve.

    The first machine becomes the head; each other one joins it with --join and the head's token in ~/.ray/auth_token
    or RAY_AUTH_TOKEN. Run again on the head it changes what is deployed: replicas are replaced one after the other.

    Exit codes: 0 when every replica serves, 1 where one cannot, 2 for wrong usage, 3 for settings that cannot be.
    """
    settings = _settings()
    node_options = NodeOptions(address, head_port, dashboard_port, object_store_bytes, storage, node_cpus, node_gpus)
    with told_in_one_line():
        given = Replicas(*replicas, cpus, _gpus(settings) if gpus is None else gpus)
        plan = ScalePlan(settings, given, Entrance(host, port, proxy, affinity, proxies), metrics_port)
        if print_config:
            click.echo(_yaml(plan))
            return
        require_ray()
        if join is not None:
            _join(plan, node_options, join, timeout_s)
        else:
            _lead(plan, node_options, timeout_s)


def _settings() -> Settings:
    try:
        settings = load_settings()
        check_models(settings)
    except StartError as error:
        click.echo(f"forklift: {error}", err=True)
        raise SystemExit(3) from None
    return settings


def _gpus(settings: Settings) -> float:
    """GPUs of one replica as the settings have it for one worker."""
    if settings.device == "cpu" or not gpu_labels(settings, os.environ):
        return 0.0
    return settings.gpus_per_worker / settings.workers_per_gpu


def _yaml(plan: ScalePlan) -> str:
    from app.cluster.config_file import as_yaml

    return as_yaml(plan.config())


def _join(plan: ScalePlan, options: NodeOptions, head_address: str, timeout_s: float) -> None:
    if find_token(os.environ) is None:
        raise ScaleError("no token: copy ~/.ray/auth_token of the head here, or set RAY_AUTH_TOKEN")
    node = make_node(plan.settings)
    arguments, environ = joining_arguments(options, head_address), node_environment(plan, options)
    start = partial(node.start, arguments, environ, head_address, None)
    _start(node, start, f"joining {head_address}", timeout_s)
    click.echo(f"this machine is a node of {head_address}; forklift scale status on the head shows it")


def _start(node: RayNode, start: Callable[[], None], what: str, timeout_s: float) -> None:
    """Ray gives its own processes half a minute, which a busy machine may not keep: it is started again then."""
    for _ in range(NUM_STARTS):
        start()
        wait_for(lambda: node.failure() is not None or _has_started(node), what, timeout_s)
        if (failure := node.failure()) is None:
            return
    raise ScaleError(f"Ray did not start: {failure} (see {node.log_path})")


def _has_started(node: RayNode) -> bool:
    """Whether ``ray start`` says that it is done."""
    return "Ray runtime started" in node.log_path.read_text(encoding="utf-8", errors="replace")


def _lead(plan: ScalePlan, options: NodeOptions, timeout_s: float) -> None:
    make_token(os.environ)
    node = make_node(plan.settings)
    if node.record() is None:
        arguments, environ, url = head_arguments(options), node_environment(plan, options), options.dashboard_url
        start = partial(node.start, arguments, environ, options.head_address, url)
        _start(node, start, "starting Ray's processes", timeout_s)
    head = make_head(node, None)
    wait_for(head.is_there, "waiting for the head", timeout_s)
    wait_for(lambda: _is_deployed(head, plan), "deploying", DEPLOY_LIMIT_S)
    wait_for(lambda: view(head).is_ready, "bringing up replicas", timeout_s, lambda: _progress(lambda: view(head)))
    where = "of the head" if plan.entrance.on == "head" else "of every node that has one"
    click.echo(f"{plan.replicas.least} replicas serve on port {plan.entrance.port} {where}")


def _is_deployed(head: Head, plan: ScalePlan) -> bool:
    """A head that has just begun may not be able to yet, and raises ``HeadError``."""
    head.deploy(plan.config())
    return True


def _progress(look: Callable[[], ClusterView]) -> str:
    found = look()
    if found.state == "DEPLOY_FAILED":
        raise CommandError(f"the replicas cannot start: {found.message}")
    alive = sum(node.state == "ALIVE" for node in found.nodes)
    proxy = "" if found.has_proxy else ", no proxy yet"
    return f"{found.num_running} of {found.num_wanted} replicas on {alive} nodes{proxy}"
