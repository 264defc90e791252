"""Routes that several APIs name: the fields of the body decide whose request it is. HTTP threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from flask import Response

from app.core.errors import ContextLengthError, InvalidParameterError
from app.http.answers.native_shapes import timings_of
from app.http.answers.openai_types import InputUsage
from app.http.answers.task_types import TaskDetails
from app.http.application.error_envelope import use_error_form
from app.http.application.request_log import record
from app.http.application.restful import Route
from app.http.reading.body import read_fields, read_object
from app.http.requests.encoding import EncodeWith, Encoding
from app.http.requests.opening import open_request
from app.http.schemas.strict import StrictBody
from app.serve.incoming.error_forms import ErrorForm, own_form

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle


@dataclass(frozen=True, slots=True)
class BodyShape:
    """The request of one API: a body with the field ``mark``, which no other shape of the route has."""

    mark: str
    body: type[StrictBody]
    answer: Callable[[TextTaskRoute, Any], Response]
    error_form: ErrorForm = own_form
    api: str = "Forklift"


class TextTaskRoute(Route):
    """``shapes``: our own first."""

    shapes: ClassVar[tuple[BodyShape, ...]]

    def post(self) -> Response:
        fields = read_object()
        shape = self._shape(fields)
        use_error_form(shape.error_form)
        return shape.answer(self, read_fields(shape.body, fields))

    def _shape(self, fields: dict[str, Any]) -> BodyShape:
        """The first whose mark is there. Raises ``InvalidParameterError`` where several could be and none is."""
        for shape in self.shapes:
            if fields.get(shape.mark) is not None:
                return shape
        if len(self.shapes) == 1:
            return self.shapes[0]
        known = ", ".join(f"{shape.mark} ({shape.api})" for shape in self.shapes)
        mark = self.shapes[0].mark
        raise InvalidParameterError(f"{mark}: is missing; the body has one of: {known}", param=mark)

    def open(self, work: EncodeWith, model: str | None, prompt: object, recordid: str | int | None = None) -> Encoding:
        """The request once it is submitted; its log line tells of it. Raises a ``RequestError``."""
        return self.open_on(self.service.choose(model, work.task), work, prompt, recordid)

    def open_on(
        self, handle: ModelHandle, work: EncodeWith, prompt: object, recordid: str | int | None = None
    ) -> Encoding:
        """The same where the model was chosen."""
        line = record()
        line.recordid, line.prompt = recordid, prompt
        return open_request(self.service.context, handle, work)


HUB = "Hugging Face's inference API"


@contextmanager
def naming_inputs() -> Iterator[None]:
    """What our own route finds wrong with a text came in ``inputs``."""
    try:
        yield
    except (InvalidParameterError, ContextLengthError) as error:
        if error.param not in ("text", "question", "context"):
            raise
        text = f"inputs: {error.message.removeprefix(f'{error.param}: ')}"
        raise type(error)(text, param="inputs") from None


def token_usage(encoding: Encoding) -> InputUsage:
    """Token counts of work that generates nothing."""
    num_tokens = encoding.usage()["prompt_tokens"]
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def details(encoding: Encoding, recordid: str | int | None) -> TaskDetails:
    """What a native answer that is an object tells beside its results."""
    told: TaskDetails = {
        "usage": token_usage(encoding),
        "timings": timings_of(encoding),
        "model": encoding.model,
        "request_id": encoding.request_id,
    }
    return told if recordid is None else {**told, "recordid": recordid}
