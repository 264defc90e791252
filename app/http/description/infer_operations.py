"""What the routes of the Open Inference Protocol take and give: rows of the table of operations. Pure data."""

from __future__ import annotations

from app.http.description.operation_form import WORKS, Operation
from app.http.dialects.open_inference import infer_types as oip
from app.http.dialects.open_inference.infer_body import InferBody
from app.http.reading.body import JSON_TYPE
from app.serve.incoming.error_forms import InferError

TAG = "Open Inference Protocol"
# A model by itself, and by its one version.
PATHS = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")


def _getting(summary: str, answer: object, *statuses: int, text: str = "") -> Operation:
    return Operation(summary, TAG, {JSON_TYPE: answer}, statuses=statuses, text=text, failure=InferError)


INFER_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("/v2", "get"): _getting("What answers", oip.ServerMetadata),
    ("/v2/health/live", "get"): _getting("200 while the process answers", oip.ServerLive),
    ("/v2/health/ready", "get"): _getting("200 when this server can take work, else 503", oip.ServerReady),
}
for _path in PATHS:
    INFER_OPERATIONS |= {
        (_path, "get"): _getting("A model's inputs and outputs", oip.ModelMetadata, 400, 404),
        (f"{_path}/ready", "get"): _getting("200 when work for this model is taken", oip.ModelReady, 400, 404),
        (f"{_path}/infer", "post"): Operation(
            "Encode texts",
            TAG,
            {JSON_TYPE: oip.InferAnswer},
            {JSON_TYPE: InferBody},
            WORKS,
            text="One input, `text`, of the type BYTES; embeddings or proposals for masks as tensors.",
            failure=InferError,
        ),
    }
