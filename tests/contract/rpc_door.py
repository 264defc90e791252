"""The gRPC door of a worker in this process, and a client's connection to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from app.rpc.door import RpcDoor
from app.serve.context import WorkerContext


@contextmanager
def open_door(context: WorkerContext) -> Iterator[RpcDoor]:
    """The door while it is open; ``context.settings.grpc_bind`` is its address."""
    door = RpcDoor(context)
    door.open()
    try:
        yield door
    finally:
        door.close()


@contextmanager
def connected(context: WorkerContext) -> Iterator[grpc.Channel]:
    """A channel to the door."""
    with open_door(context), grpc.insecure_channel(context.settings.grpc_bind) as channel:
        yield channel
