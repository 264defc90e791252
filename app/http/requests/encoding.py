"""A request to an encoder: a place, token ids, a job for each text. HTTP threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from app.core.encoder_jobs import Encoded, EncoderJob
from app.core.errors import ContextLengthError
from app.core.model_tables import Task
from app.http.requests.admitted import NEED_ONE, AdmittedRequest, Need
from app.http.requests.limits import naming
from app.http.requests.running import RunningRequest

if TYPE_CHECKING:
    from app.models.encoder_model import EncoderModel

# Token ids of each text, made as they are asked for: the first that does not fit spares the others.
EncodeTexts: TypeAlias = "Callable[[EncoderModel], Iterable[list[int]]]"


class Encoding(RunningRequest):
    """Texts that are being encoded, and the place they take together."""

    def __init__(self, admitted: AdmittedRequest, texts: list[list[int]], top_k: int):
        super().__init__(admitted)
        self.encoder = admitted.encoder
        options = self.job_options(is_alone=len(texts) == 1)
        self.encoder_jobs = [EncoderJob(self.request_id, ids, top_k, **options) for ids in texts]
        self.plan(self.encoder_jobs)

    def read_encoded(self) -> list[tuple[list[int], Encoded]]:
        """Token ids and result of each text. Raises the error that ended one, if one did."""
        self.read_all()
        return [(job.prompt_ids, job.encoded) for job in self.encoder_jobs if job.encoded is not None]


@dataclass(frozen=True, slots=True)
class EncodeWith:
    """Encode the texts of the field ``param`` with a model for ``task``; ``top_k`` tokens are wanted for each mask."""

    task: Task
    param: str
    encode: EncodeTexts
    top_k: int = 0

    @property
    def need(self) -> Need:
        """The texts of a request share a place."""
        return NEED_ONE

    def plan(self, admitted: AdmittedRequest) -> Encoding:
        model = admitted.encoder
        with naming(self.param):
            texts = [self._fitting(ids, model) for ids in self.encode(model)]
        return Encoding(admitted, texts, self.top_k)

    def _fitting(self, ids: list[int], model: EncoderModel) -> list[int]:
        if len(ids) > model.context_tokens:
            text = f"{self.param}: {len(ids)} tokens do not fit the context of {model.context_tokens} tokens"
            raise ContextLengthError(text, param=self.param)
        return ids
