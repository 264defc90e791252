"""From a validated body to jobs in the engine: a place, prompts as token ids, parameters. HTTP threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from flask import request

from app.core.jobs import BaseJob, Job
from app.http.application.request_log import record
from app.http.requests.admitted import AdmittedRequest, first_start
from app.http.requests.admitting import Need, admit
from app.http.requests.limits import naming
from app.http.requests.planning import Plan, make_plans
from app.http.requests.running import RunningRequest
from app.http.schemas.sampling_fields import SamplingOptions
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle
    from app.models.text_model import TextModel
    from app.models.tokens.infill import InfillPrompt

# The token ids of each prompt of one request; all are generated for with the request's own options.
Encode: TypeAlias = "Callable[[TextModel], Sequence[list[int] | InfillPrompt]]"


class RequestOpener:
    """Starts generations on one worker."""

    def __init__(self, context: WorkerContext):
        self._context = context

    def open(self, handle: ModelHandle, options: SamplingOptions, encode: Encode) -> RunningRequest:
        """Admit the request, tokenize, submit ``options.num_choices`` jobs per prompt, prompt by prompt.

        Raises a ``RequestError``; the place is then free again.
        """
        with admit(self._context, handle, "generate", need=need_of(options)) as admitted:
            model = admitted.text_model
            with naming(options.prompt_param):
                prompts = encode(model)
            plans = make_plans(options, prompts, model, handle.settings, admitted.compiled)
        news = threading.Event()
        generation = RunningRequest(
            record().request_id, admitted, model.name, request.environ, news, model.vocabulary, options.num_choices
        )
        record().generation = generation
        submit_all(make_jobs(plans, admitted, news, is_streamed=bool(options.stream)), admitted, generation)
        return generation


def need_of(options: SamplingOptions) -> Need:
    """A place for each sequence."""
    param = "n" if options.num_choices > 1 else options.prompt_param
    return Need(options.num_sequences, param, options.cache_salt)


def submit_all(jobs: Sequence[BaseJob], admitted: AdmittedRequest, generation: RunningRequest) -> None:
    """Queue the jobs of one request; where one is refused the request fails."""
    try:
        for job in jobs:
            admitted.submit(job)
            generation.add(job)
    except BaseException as error:
        generation.fail(error)
        raise


def make_jobs(
    plans: list[Plan], admitted: AdmittedRequest, news: threading.Event, *, is_streamed: bool = True
) -> list[Job]:
    """Jobs of one request. The first that starts moves the place; the others may then wait for it."""
    jobs: list[Job] = []
    start = first_start(admitted, jobs)
    jobs += [
        Job(
            record().request_id,
            plan.prompt_ids,
            plan.params,
            is_streamed=is_streamed,
            is_open=plan.is_open,
            queue_deadline_s=admitted.deadlines.queue_s,
            deadline_s=admitted.deadlines.total_s,
            on_started=start,
            on_event=news.set if len(plans) > 1 else None,
        )
        for plan in plans
    ]
    return jobs
