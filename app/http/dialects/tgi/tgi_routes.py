"""text-generation-inference's routes: ``/generate``, ``/generate_stream``, its part of ``/`` and ``/info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response

from app import __version__
from app.core.settings import Settings
from app.http.answers.native_shapes import Shape
from app.http.answers.stream import Writer
from app.http.dialects.tgi.tgi_body import TgiBody, TgiOptions, TgiRootBody
from app.http.dialects.tgi.tgi_shape import TgiShape, TgiWriter
from app.http.dialects.tgi.tgi_types import TgiInfo
from app.http.reading.body import read_body
from app.http.resources.text_route import TextRoute
from app.http.schemas.sampling_fields import SamplingOptions
from app.http.schemas.strict import MAX_STOPS

if TYPE_CHECKING:
    from app.models.text_model import TextModel


class TgiRoute(TextRoute):
    """Continues a text, in text-generation-inference's form."""

    def writer(self, body: SamplingOptions, shape: Shape) -> Writer:
        return TgiWriter(shape)

    def generate(self, options: TgiOptions, shape: TgiShape) -> Response:
        """The answer, whole or streamed. Raises a ``RequestError``."""

        def encode(model: TextModel) -> list[list[int]]:
            ids = model.encode(options.inputs)
            return [ids if options.told.truncate is None else ids[-options.told.truncate :]]

        return self.answer(self.handle_of(options), options, shape, encode, options.inputs)


class TgiGenerate(TgiRoute):
    """The whole text."""

    def post(self) -> Response:
        options = read_body(TgiBody).options(is_streamed=False)
        return self.generate(options, TgiShape(options))


class TgiGenerateStream(TgiRoute):
    """A token an event."""

    def post(self) -> Response:
        options = read_body(TgiBody).options(is_streamed=True)
        return self.generate(options, TgiShape(options))


def generate_at_root(route: TextRoute, body: TgiRootBody) -> Response:
    """What its clients send to ``/``: the answer is a list, or a stream."""
    options = body.options(is_streamed=bool(body.stream))
    own = TgiRoute(service=route.service)
    return own.generate(options, TgiShape(options, is_listed=True))


def tgi_info(model: TextModel, settings: Settings) -> TgiInfo:
    """The model and its bounds."""
    return {
        "model_id": model.name,
        "model_sha": settings.revision,
        "model_dtype": f"torch.{model.dtype}",
        "model_device_type": model.device_type,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": settings.max_batch_size + settings.max_queue,
        "max_best_of": 1,
        "max_stop_sequences": MAX_STOPS,
        "max_input_tokens": model.context_tokens - 1,
        "max_total_tokens": model.context_tokens,
        "validation_workers": 1,
        "max_client_batch_size": 1,
        "router": "forklift",
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
