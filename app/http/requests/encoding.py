"""One request to an encoder: a place, token ids, a job for each text. HTTP threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from flask import request

from app.core.encoder_jobs import Encoded, EncoderJob
from app.core.errors import ContextLengthError
from app.core.model_tables import Task
from app.http.application.request_log import record
from app.http.requests.admitted import AdmittedRequest, first_start
from app.http.requests.admitting import admit
from app.http.requests.limits import naming
from app.http.requests.open import submit_all
from app.http.requests.running import RunningRequest
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle
    from app.models.encoder_model import EncoderModel

# Token ids of each text, made as they are asked for: the first that does not fit spares the others.
Encode: TypeAlias = "Callable[[EncoderModel], Iterable[list[int]]]"


class Encoding(RunningRequest):
    """Texts that are being encoded, and the place they take together."""

    def __init__(self, admitted: AdmittedRequest, model: EncoderModel, news: threading.Event, jobs: list[EncoderJob]):
        super().__init__(record().request_id, admitted, model.name, request.environ, news, model.vocabulary)
        self.encoder = model
        self.encoder_jobs = jobs

    def read_encoded(self) -> list[tuple[list[int], Encoded]]:
        """Token ids and result of each text. Raises the error that ended one, if one did."""
        self.read_all()
        return [(job.prompt_ids, job.encoded) for job in self.encoder_jobs if job.encoded is not None]


def open_encoding(
    context: WorkerContext, handle: ModelHandle, task: Task, param: str, encode: Encode, top_k: int = 0
) -> Encoding:
    """Admit the request, tokenize, submit a job for each text. Raises a ``RequestError``."""
    with admit(context, handle, task) as admitted:
        model = admitted.encoder
        with naming(param):
            texts = [_fitting(ids, model, param) for ids in encode(model)]
    news = threading.Event()
    jobs = _make_jobs(texts, top_k, admitted, news)
    encoding = Encoding(admitted, model, news, jobs)
    record().generation = encoding
    submit_all(jobs, admitted, encoding)
    return encoding


def _make_jobs(
    texts: list[list[int]], top_k: int, admitted: AdmittedRequest, news: threading.Event
) -> list[EncoderJob]:
    jobs: list[EncoderJob] = []
    start = first_start(admitted, jobs)
    for ids in texts:
        job = EncoderJob(
            record().request_id,
            ids,
            top_k,
            queue_deadline_s=admitted.deadlines.queue_s,
            deadline_s=admitted.deadlines.total_s,
            on_started=start,
            on_event=news.set if len(texts) > 1 else None,
        )
        jobs.append(job)
    return jobs


def _fitting(ids: list[int], model: EncoderModel, param: str) -> list[int]:
    if len(ids) > model.context_tokens:
        text = f"{param}: {len(ids)} tokens do not fit the context of {model.context_tokens} tokens"
        raise ContextLengthError(text, param=param)
    return ids
