"""Reads a request's body: content type, size, encoding, then the schema. HTTP threads."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import parse_qsl

from flask import current_app, request

from app.core.errors import (
    BadRequestError,
    BodyTooLargeError,
    InvalidParameterError,
    UnsupportedMediaTypeError,
    UnsupportedParameterError,
)
from app.http.application import work_bytes
from app.http.application.request_log import record
from app.http.reading.strict_json import parse_object
from app.http.reading.validation import validate
from app.http.schemas.strict import StrictBody

JSON_TYPE = "application/json"
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")

Body = TypeVar("Body", bound=StrictBody)


def read_body(schema: type[Body]) -> Body:
    """The validated JSON body. Raises a ``RequestError``."""
    return read_fields(schema, read_object())


def read_fields(schema: type[Body], fields: dict[str, Any]) -> Body:
    """The validated body; with UNKNOWN_FIELDS=warn unknown fields are noted for the log and the answer's header.

    Raises a ``RequestError``.
    """
    return validate(schema, fields, record().ignored_fields if current_app.config["IGNORES_UNKNOWN_FIELDS"] else None)


def read_object() -> dict[str, Any]:
    """The JSON object in the body, not validated."""
    require_type(JSON_TYPE)
    return parse_object(read_raw())


def read_raw() -> bytes:
    """All bytes of the body. Raises ``BodyTooLargeError``, also for chunked bodies."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaTypeError("send the body as it is: Content-Encoding is not supported")
    raw = request.get_data()
    limit: int = current_app.config["MAX_BODY_BYTES"]
    if len(raw) > limit:
        raise BodyTooLargeError(f"the body is larger than {limit} bytes (FORKLIFT_MAX_BODY_BYTES)")
    if len(raw) < (request.content_length or 0):
        raise BadRequestError("the body ended early")
    work_bytes.count(len(raw))
    return raw


def require_type(*allowed: str) -> None:
    """Raise ``UnsupportedMediaTypeError`` unless the body is of an allowed type, in UTF-8."""
    if request.mimetype not in allowed:
        raise UnsupportedMediaTypeError(f"send the body with Content-Type: {' or '.join(allowed)}")
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaTypeError("the charset of the body must be utf-8")


def read_form_field(name: str) -> str:
    """The one field of an HTML form body; other fields are refused by name."""
    require_type(*FORM_TYPES)
    fields = _multipart_fields() if request.mimetype == FORM_TYPES[1] else _urlencoded_fields()
    for other, _ in fields:
        if other != name:
            raise UnsupportedParameterError(f"unknown form field {other[:100]!r}", param=other[:100])
    if len(fields) != 1:
        raise InvalidParameterError(f"{name}: send this form field once", param=name)
    return fields[0][1]


def _urlencoded_fields() -> list[tuple[str, str]]:
    raw = read_raw()
    try:
        return parse_qsl(raw.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except UnicodeDecodeError:
        raise BadRequestError("the form is not UTF-8") from None
    except ValueError:
        raise BadRequestError("the form has too many fields") from None


def _multipart_fields() -> list[tuple[str, str]]:
    # Werkzeug decodes with replacement: the sign may only come from the text itself.
    raw = read_raw()
    fields = list(request.form.items(multi=True))
    if request.files:
        raise BadRequestError("send form fields, not files")
    if any("\ufffd" in value for _, value in fields) and "\ufffd".encode() not in raw:
        raise BadRequestError("the form is not UTF-8")
    return fields
