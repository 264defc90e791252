"""Body of ``/v2/models/<name>/infer``; also what a gRPC request of that protocol is turned into.

Form: the Open Inference Protocol's REST and gRPC specifications (github.com/kserve/open-inference-protocol).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.http.schemas.encoder_bodies import MAX_INPUTS
from app.http.schemas.strict import StrictBody

# The one input that models of texts have.
TEXT = "text"
MAX_OUTPUTS = 16
ParameterValue = str | bool | int | float
Parameters = Annotated[dict[str, ParameterValue], Field(max_length=32)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class InferInput(StrictBody):
    """A tensor; one of texts is flat."""

    name: Name = Field(description="`text`: the one input that these models have.")
    shape: Annotated[list[int], Field(min_length=1, max_length=8)] = Field(description="[number of texts].")
    datatype: Literal["BYTES"] = Field(description="BYTES: texts in UTF-8.")
    parameters: Parameters | None = Field(None, description="None is known.")
    data: Annotated[list[str], Field(max_length=MAX_INPUTS, fail_fast=True)] = Field(description="The texts.")


class InferOutput(StrictBody):
    """An output that is wanted."""

    name: Name = Field(description="One of the model's outputs.")
    parameters: Parameters | None = Field(None, description="None is known.")


class InferBody(StrictBody):
    """Tensors for a model."""

    id: Annotated[str, StringConstraints(max_length=256)] | None = Field(
        None, description="The caller's own id of the request; returned, and written to the log as its recordid."
    )
    parameters: Parameters | None = Field(
        None, description="`top_k` for masks; `dimensions` and `prompt_name` for embeddings."
    )
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1)] = Field(description="The one input.")
    outputs: Annotated[list[InferOutput], Field(max_length=MAX_OUTPUTS)] | None = Field(
        None, description="The outputs that are wanted. Default: all."
    )

    @model_validator(mode="after")
    def _texts(self) -> InferBody:
        [given] = self.inputs
        if given.name != TEXT:
            raise InvalidParameterError(f"inputs: {given.name!r} is no input; there is {TEXT!r}", param="inputs")
        if given.shape not in ([len(given.data)], [len(given.data), 1]) or not given.data:
            text = f"inputs: {len(given.data)} texts do not have the shape {given.shape}"
            raise InvalidParameterError(text, param="inputs")
        _refuse_parameters(given.parameters, "inputs")
        for one in self.outputs or []:
            _refuse_parameters(one.parameters, "outputs")
        return self

    @property
    def texts(self) -> list[str]:
        return self.inputs[0].data

    def chosen(self, known: tuple[str, ...]) -> dict[str, Any]:
        """The parameters, all of which are ``known``. Raises ``UnsupportedParameterError``."""
        given = self.parameters or {}
        for name in given:
            if name not in known:
                text = f"parameters: {name[:100]!r} is not followed; known are {', '.join(known)}"
                raise UnsupportedParameterError(text, param="parameters")
        return dict(given)

    def wants(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """The outputs to be told, in the order asked for. Raises ``InvalidParameterError``."""
        names = tuple(one.name for one in self.outputs or ())
        for name in names:
            if name not in known:
                text = f"outputs: {name[:100]!r} is no output; there are {', '.join(known)}"
                raise InvalidParameterError(text, param="outputs")
        return names or known


def _refuse_parameters(parameters: dict[str, ParameterValue] | None, param: str) -> None:
    if parameters:
        raise UnsupportedParameterError(f"{param}: {next(iter(parameters))[:100]!r} is not followed", param=param)
