"""From a validated body to jobs in the engine: a place, prompts as token ids, parameters. HTTP threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from flask import request

from app.core.jobs import Job
from app.http.backend import EndedPrompt, TextModel, inference_of, loaded_model
from app.http.generation import Generation
from app.http.limits import Deadlines
from app.http.placing import first_start, placed
from app.http.planning import Plan, make_plans
from app.http.request_log import record
from app.http.schemas.sampling import SamplingOptions
from app.serve.admission import Place
from app.serve.context import WorkerContext

# The token ids of each prompt of one request; all are generated for with the request's own options.
Encode = Callable[[TextModel], Sequence[list[int] | EndedPrompt]]


class Generator:
    """Starts generations on one worker."""

    def __init__(self, context: WorkerContext):
        self._context = context

    def open(self, options: SamplingOptions, encode: Encode) -> Generation:
        """Take one place, tokenize, submit ``options.num_choices`` jobs per prompt, prompt by prompt.

        Raises a ``RequestError``; the place is then free again.
        """
        with placed(self._context) as (place, deadlines):
            model = loaded_model(self._context)
            plans = make_plans(options, encode(model), model, self._context.settings)
        news = threading.Event()
        generation = Generation(
            record().request_id, place, model.name, request.environ, news, model.vocabulary, options.num_choices
        )
        record().generation = generation
        jobs = make_jobs(plans, deadlines, place, news, is_streamed=bool(options.stream))
        self._submit(jobs, generation)
        return generation

    def _submit(self, jobs: list[Job], generation: Generation) -> None:
        try:
            for job in jobs:
                inference_of(self._context).submit(job)
                generation.add(job)
        except BaseException as error:
            generation.fail(error)
            raise


def make_jobs(
    plans: list[Plan], deadlines: Deadlines, place: Place, news: threading.Event, *, is_streamed: bool = True
) -> list[Job]:
    """Jobs of one request. The first that starts moves the place; the others may then wait for it."""
    jobs: list[Job] = []
    start = first_start(place, jobs)
    jobs += [
        Job(
            record().request_id,
            plan.prompt_ids,
            plan.params,
            is_streamed=is_streamed,
            queue_deadline_s=deadlines.queue_s,
            deadline_s=deadlines.total_s,
            on_started=start,
            on_event=news.set if len(plans) > 1 else None,
        )
        for plan in plans
    ]
    return jobs
