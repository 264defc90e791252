"""What the Open Inference Protocol's routes answer. Types only."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


class ServerLive(TypedDict):
    """The process answers."""

    live: bool


class ServerReady(TypedDict):
    """Work is taken."""

    ready: bool


class ModelReady(TypedDict):
    """Work for this model is taken."""

    name: str
    ready: bool


class ServerMetadata(TypedDict):
    """What answers."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(TypedDict):
    """A tensor's form; -1 is a size that a request decides."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(TypedDict):
    """A model's inputs and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(TypedDict):
    """A tensor, flat, row by row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferAnswer(TypedDict):
    """The outputs."""

    model_name: str
    model_version: str
    id: NotRequired[str]
    outputs: list[OutputTensor]
