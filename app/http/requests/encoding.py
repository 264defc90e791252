"""A request to an encoder: a place, token ids, a job for each text. HTTP threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from app.core.errors import ContextLengthError
from app.core.tasks.encoder_jobs import PLAIN, Encoded, EncodeOptions, EncoderInput, EncoderJob
from app.core.tasks.task_table import Task
from app.http.requests.admitted import NEED_ONE, AdmittedRequest, Need
from app.http.requests.limits import naming
from app.http.requests.running import RunningRequest

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel

# The texts as the model reads them, made as they are asked for: the first that does not fit spares the others.
EncodeTexts: TypeAlias = "Callable[[EncoderModel], Iterable[EncoderInput]]"


class Encoding(RunningRequest):
    """Texts that are being encoded, and the place they take together."""

    def __init__(self, admitted: AdmittedRequest, texts: list[EncoderInput], wanted: EncodeOptions):
        super().__init__(admitted)
        self.encoder = admitted.encoder
        options = self.job_options(is_alone=len(texts) == 1)
        self.encoder_jobs = [EncoderJob(self.request_id, one, wanted, **options) for one in texts]
        self.plan(self.encoder_jobs)

    def read_encoded(self) -> list[tuple[EncoderInput, Encoded]]:
        """Each text and its result. Raises the error that ended one, if one did."""
        self.read_all()
        return [(job.given, job.encoded) for job in self.encoder_jobs if job.encoded is not None]


@dataclass(frozen=True, slots=True)
class EncodeWith:
    """Encode the texts of the field ``param`` with a model that does ``task``."""

    task: Task
    param: str
    encode: EncodeTexts
    wanted: EncodeOptions = PLAIN

    @property
    def need(self) -> Need:
        """The texts of a request share a place."""
        return NEED_ONE

    def plan(self, admitted: AdmittedRequest) -> Encoding:
        model = admitted.encoder
        with naming(self.param):
            texts = [self._fitting(one, model) for one in self.encode(model)]
        return Encoding(admitted, texts, self.wanted)

    def _fitting(self, one: EncoderInput, model: EncoderModel) -> EncoderInput:
        if len(one.ids) > model.context_tokens:
            text = f"{self.param}: {len(one.ids)} tokens do not fit the context of {model.context_tokens} tokens"
            raise ContextLengthError(text, param=self.param)
        return one
