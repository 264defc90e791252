"""The OpenAPI 3.1 description, from the pydantic models that validate and the table of operations.

Pure functions, called once per process by the HTTP thread that first needs it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import TypeAdapter

from app import __version__
from app.core.errors import RequestError
from app.http.answers.system_types import Health, Readiness
from app.http.description.operation_form import Form, Operation
from app.http.description.operations import EVENTS, OPERATIONS
from app.http.reading.body import JSON_TYPE
from app.http.requests.limits import TIMEOUT_HEADER
from app.serve.incoming.error_forms import Error
from app.serve.incoming.gate import PROBES

Schema = dict[str, Any]
Key = tuple[str, str, str, str]
REF = "#/components/schemas/{model}"
ALWAYS = (401, 421, 500)
# Where a page of another origin is refused.
OF_UNSAFE = (403,)
ERROR_HEADERS = {
    401: {"WWW-Authenticate": "`Bearer`."},
    405: {"Allow": "Methods of the route."},
    503: {"Retry-After": "Whole seconds, from queue length and measured service time."},
    504: {"X-Should-Retry": "`false`: OpenAI's client would repeat the work."},
}


@functools.cache
def document(needs_key: bool, path_prefix: str = "") -> Schema:
    """The whole description; ``needs_key`` says whether the server has API keys, ``path_prefix`` where it lies."""
    schemas, definitions = _schemas()
    paths: dict[str, Schema] = {}
    for (path, method), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method] = _operation(path, method, operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Forklift", "version": __version__, "description": INTRODUCTION},
        "servers": [{"url": path_prefix or "/"}],
        "security": [*([] if needs_key else [{}]), *({name: []} for name in KEY_SCHEMES)],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "responses": dict(_error_responses()),
            "securitySchemes": KEY_SCHEMES,
            "parameters": PARAMETERS,
            "headers": {"X-Request-Id": {"schema": {"type": "string"}, "description": "The request's id."}},
        },
    }


KEY_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer"},
    "keyOfAnthropic": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}
INTRODUCTION = (
    "A transformers model as JSON over HTTP. Unknown fields and values out of bounds are refused with 400 and the "
    "field's name in `param`; nothing is truncated or ignored silently. `null` is the same as leaving a field out."
)
PARAMETERS = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Taken where it matches `[A-Za-z0-9._-]{1,64}`, else one is made; comes back and is logged.",
        "schema": {"type": "string"},
    },
    "RequestTimeout": {
        "name": TIMEOUT_HEADER,
        "in": "header",
        "description": "Seconds, above 0: shortens the server's limits for this request.",
        "schema": {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$"},
        "example": "30",
    },
}


def _operation(path: str, method: str, operation: Operation, schemas: dict[Key, Schema]) -> Schema:
    shown: Schema = {
        "operationId": _operation_id(path, method),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(path, operation),
        "responses": _responses(path, method, operation, schemas),
    }
    if operation.text:
        shown["description"] = operation.text
    if operation.bodies:
        content = {kind: _request_content(path, method, kind, operation, schemas) for kind in operation.bodies}
        shown["requestBody"] = {"required": True, "content": content}
    if path in PROBES:
        shown["security"] = []
    return shown


def _operation_id(path: str, method: str) -> str:
    words = "".join(sign if sign.isalnum() else " " for sign in path).split() or ["root"]
    return "_".join([method, *words])


def _parameters(path: str, operation: Operation) -> list[Schema]:
    shown: list[Schema] = [{"$ref": "#/components/parameters/RequestId"}]
    if operation.takes_place:
        shown.append({"$ref": "#/components/parameters/RequestTimeout"})
    if "{name}" in path:
        text = "Name of the model; may hold slashes."
        schema = {"type": "string", "minLength": 1}
        shown.append({"name": "name", "in": "path", "required": True, "description": text, "schema": schema})
    return shown


def _request_content(path: str, method: str, kind: str, operation: Operation, schemas: dict[Key, Schema]) -> Schema:
    body = operation.bodies[kind]
    if isinstance(body, Form):
        fields = {body.field: {"type": "string"}}
        schema: Schema = {
            "type": "object",
            "properties": fields,
            "required": [body.field],
            "additionalProperties": False,
        }
    else:
        schema = schemas.get((path, method, "body", kind), {"type": "string"})
    example = operation.example.get(kind)
    return {"schema": schema} if example is None else {"schema": schema, "example": example}


def _responses(path: str, method: str, operation: Operation, schemas: dict[Key, Schema]) -> Schema:
    content = {kind: _answer_content(schemas.get((path, method, "answer", kind)), kind) for kind in operation.answers}
    shown: Schema = {"200": {"description": operation.summary, "headers": _headers(200), "content": content}}
    of_method = OF_UNSAFE if operation.bodies else ()
    for status in sorted({*operation.statuses, *ALWAYS, *of_method}):
        # The probes ask for no key.
        if status != 401 or path not in PROBES:
            shown[str(status)] = {"$ref": f"#/components/responses/{_name(status)}"}
    if operation.failure is not Error:
        failure = schemas[path, method, "failure", JSON_TYPE]
        shown |= {status: _failure(int(status), failure) for status in shown if status != "200"}
    if "text/html" in operation.answers:
        shown["401"] = _page_for_a_key()
    if path in ("/readyz", "/health"):
        schema = {"$ref": REF.format(model=(Readiness if path == "/readyz" else Health).__name__)}
        shown["503"] = {"description": "Not now.", "headers": _headers(200), "content": {JSON_TYPE: {"schema": schema}}}
    return shown


def _answer_content(schema: Schema | None, kind: str) -> Schema:
    """OpenAPI 3.1 has no schema for the events of a stream; other media without one are text."""
    return {} if kind == EVENTS else {"schema": schema or {"type": "string"}}


def _page_for_a_key() -> Schema:
    """Browsers get the page, with a field for the key."""
    content = {
        JSON_TYPE: {"schema": {"$ref": REF.format(model=Error.__name__)}},
        "text/html": {"schema": {"type": "string"}},
    }
    return {"description": describe_status(401), "headers": _headers(401), "content": content}


def _failure(status: int, schema: Schema) -> Schema:
    """A failure in the form that the callers of a route expect."""
    content = {JSON_TYPE: {"schema": schema}}
    return {"description": describe_status(status), "headers": _headers(status), "content": content}


def _error_responses() -> Iterator[tuple[str, Schema]]:
    schema = {"$ref": REF.format(model=Error.__name__)}
    for status in sorted({one.status for one in error_classes()}):
        headers, text = _headers(status), describe_status(status)
        yield _name(status), {"description": text, "headers": headers, "content": {JSON_TYPE: {"schema": schema}}}


def _headers(status: int) -> Schema:
    own = {name: {"schema": {"type": "string"}, "description": text} for name, text in _own_headers(status)}
    return {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}, **own}


def _own_headers(status: int) -> list[tuple[str, str]]:
    return list(ERROR_HEADERS.get(status, {}).items())


def _name(status: int) -> str:
    return f"Error{status}"


def describe_status(status: int) -> str:
    """The codes that come with a status."""
    codes = sorted({one.code for one in error_classes() if one.status == status})
    return "`code`: " + ", ".join(codes) + "."


def error_classes() -> list[type[RequestError]]:
    """All errors of our own tree that a caller can see."""
    found: list[type[RequestError]] = []
    pending = list(RequestError.__subclasses__())
    while pending:
        one = pending.pop()
        pending += one.__subclasses__()
        if one.__module__ == RequestError.__module__:
            found.append(one)
    return found


def _schemas() -> tuple[dict[Key, Schema], dict[str, Schema]]:
    """The schema of each body and answer, and the definitions that they share."""
    inputs: list[tuple[Key, Literal["validation", "serialization"], TypeAdapter[Any]]] = []
    for (path, method), operation in OPERATIONS.items():
        for kind, body in operation.bodies.items():
            if body is not None and not isinstance(body, Form):
                inputs.append(((path, method, "body", kind), "validation", TypeAdapter(body)))
        if operation.failure is not Error:
            inputs.append(((path, method, "failure", JSON_TYPE), "serialization", TypeAdapter(operation.failure)))
        for kind, answer in operation.answers.items():
            if answer is not None:
                inputs.append(((path, method, "answer", kind), "serialization", TypeAdapter(answer)))
    inputs.append((("", "", "answer", ""), "serialization", TypeAdapter(Error)))
    found, shared = TypeAdapter.json_schemas(inputs, ref_template=REF)
    definitions: dict[str, Schema] = shared["$defs"]
    for definition in definitions.values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
    return {key: schema for (key, _), schema in found.items()}, definitions
