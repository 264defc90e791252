"""What the commands of ``forklift scale`` share: this machine's node, and the head that they ask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from app.cli.server_connection import CommandError
from app.cluster.machine.cluster_view import ClusterView, look
from app.cluster.machine.head import Head, HeadError
from app.cluster.machine.ray_node import RayNode
from app.cluster.tokens import find_token
from app.core.errors import ForkliftError
from app.core.settings import Settings

DASHBOARD = "http://127.0.0.1:8265"

Function = TypeVar("Function", bound=Callable[..., Any])


def dashboard_option(function: Function) -> Function:
    """Where the head answers."""
    text = f"The head's dashboard; default: that of this machine's node, else {DASHBOARD}."
    return click.option("--dashboard", metavar="URL", help=text)(function)


def make_node(settings: Settings) -> RayNode:
    """This user's node on this machine."""
    return RayNode(settings.cache_path / "scale")


def make_head(node: RayNode, dashboard: str | None) -> Head:
    """The head that a command means."""
    record = node.record()
    url = dashboard or (record.dashboard if record is not None else None) or DASHBOARD
    return Head(url, find_token(os.environ))


def view(head: Head) -> ClusterView:
    """The cluster as it is now. Raises ``HeadError``."""
    try:
        return look(head.serve_details(), head.nodes())
    except (AttributeError, KeyError, TypeError, ValueError):
        raise HeadError(f"{head.url} does not answer as the head of a cluster") from None


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """What is raised on purpose ends the command with its line."""
    try:
        yield
    except ForkliftError as error:
        raise CommandError(str(error)) from None
