"""Models as the Open Inference Protocol sees them: texts in, tensors of numbers and texts out. HTTP threads.

Embeddings give one row for each text. Masks give one row for each mask, in the order of the texts, and say in
``text_index`` which text it stands in. What encodes is what ``/v1/embeddings`` and ``/fill-mask`` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.core.errors import ModelNotFoundError, UnsupportedParameterError
from app.http.application.request_log import record
from app.http.application.service import Service
from app.http.dialects.open_inference.infer_body import TEXT, InferBody
from app.http.dialects.open_inference.infer_types import InferAnswer, ModelMetadata, OutputTensor, TensorMetadata
from app.http.reading.validation import validate
from app.http.requested.encodings import by_mask, embedding, filling_masks
from app.http.schemas.encoder_bodies import EmbeddingsBody, FillMaskBody

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle

# Models have no versions here: there is one, and it may be named or left out.
VERSION = "1"
PLATFORM = "transformers"
OF_VECTORS = ("embedding",)
OF_MASKS = ("token", "score", "token_str", "sequence", "text_index")
DATATYPES = {
    "embedding": "FP32",
    "token": "INT64",
    "score": "FP32",
    "token_str": "BYTES",
    "sequence": "BYTES",
    "text_index": "INT64",
}


def find_model(service: Service, name: str, version: str) -> ModelHandle:
    """The model of a request. Raises ``ModelNotFoundError``, ``UnsupportedParameterError``."""
    handle = service.choose(name, None)
    if version not in ("", VERSION):
        raise ModelNotFoundError(f"the model {handle.name} has the version {VERSION} alone", param="model_version")
    if handle.task not in ("embeddings", "fill-mask", None):
        text = f"the model {handle.name} has no tensors here: its task is {handle.task}; see /v1/capabilities"
        raise UnsupportedParameterError(text, param="model_name")
    return handle


def is_ready(handle: ModelHandle) -> bool:
    """Whether a request for it would be taken; one that is loaded on demand is."""
    return handle.model is not None or handle.is_on_demand


def metadata(service: Service, name: str, version: str) -> ModelMetadata:
    """The model's inputs and outputs. Raises a ``RequestError``."""
    handle = find_model(service, name, version)
    return {
        "name": handle.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [{"name": TEXT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [_described(handle, output) for output in outputs_of(handle)],
    }


def outputs_of(handle: ModelHandle) -> tuple[str, ...]:
    """The names of a model's outputs; none while its task is not known."""
    return {"embeddings": OF_VECTORS, "fill-mask": OF_MASKS}.get(handle.task or "", ())


def _described(handle: ModelHandle, output: str) -> TensorMetadata:
    model = handle.model
    if output == "embedding":
        size = [-1 if model is None or model.task != "embeddings" else model.num_dimensions]
    else:
        size = [] if output == "text_index" else [-1]
    return {"name": output, "datatype": DATATYPES[output], "shape": [-1, *size]}


def infer(service: Service, name: str, version: str, body: InferBody) -> InferAnswer:
    """Encode the texts. Raises a ``RequestError``."""
    record().recordid = body.id
    handle = find_model(service, name, version)
    outputs = _masked(service, handle, body) if handle.task == "fill-mask" else _vectors(service, handle, body)
    answer: InferAnswer = {"model_name": handle.name, "model_version": VERSION, "outputs": outputs}
    if body.id is not None:
        answer["id"] = body.id
    return answer


def _vectors(service: Service, handle: ModelHandle, body: InferBody) -> list[OutputTensor]:
    names = body.wants(OF_VECTORS)
    fields = {"input": body.texts, "model": handle.name, **body.chosen(("dimensions", "prompt_name"))}
    with embedding(service, validate(EmbeddingsBody, fields)) as (vectors, _):
        size = len(vectors[0])
        return [_tensor(name, [len(vectors), size], [x for one in vectors for x in one]) for name in names]


def _masked(service: Service, handle: ModelHandle, body: InferBody) -> list[OutputTensor]:
    names = body.wants(OF_MASKS)
    fields = {"text": body.texts, "model": handle.name, "recordid": body.id, **body.chosen(("top_k",))}
    with filling_masks(service, validate(FillMaskBody, fields)) as (texts, _):
        masks = [(index, mask) for index, text in enumerate(texts) for mask in by_mask(text)]
    return [_of_masks(name, masks) for name in names]


def _of_masks(name: str, masks: Sequence[tuple[int, list[dict[str, Any]]]]) -> OutputTensor:
    if name == "text_index":
        return _tensor(name, [len(masks)], [index for index, _ in masks])
    values = [proposal[name] for _, mask in masks for proposal in mask]
    return _tensor(name, [len(masks), len(values) // len(masks)], values)


def _tensor(name: str, shape: list[int], data: list[Any]) -> OutputTensor:
    return {"name": name, "datatype": DATATYPES[name], "shape": shape, "data": data}
