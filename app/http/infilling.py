"""One infilling request: a place, and a job for each hole, one after another. HTTP threads."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import cast

from flask import request

from app.core.errors import UnsupportedParameterError
from app.core.jobs import Job
from app.http.backend import Served, TextModel
from app.http.completion import Completion
from app.http.generation import Generation
from app.http.placing import Seat, seated
from app.http.planning import Plan, make_plans, with_seed_of
from app.http.request_log import record
from app.http.schemas.infill import InfillBody
from app.serve.context import WorkerContext


class Infilling(Generation):
    """Holes that are being filled from left to right, each prompt with what filled the ones before."""

    def __init__(self, body: InfillBody, seat: Seat, model: TextModel):
        news = threading.Event()
        super().__init__(record().request_id, seat, model.name, request.environ, news, model.vocabulary)
        self._body = body
        self._encoder = model
        self._num_holes = len(body.texts) - 1

    @property
    def has_ended_well(self) -> bool:
        """The place is kept until the last hole is filled."""
        return len(self.completions) == self._num_holes and super().has_ended_well

    @property
    def infills(self) -> list[str]:
        return [completion.text for completion in self.completions]

    @property
    def whole(self) -> str:
        """The parts with their holes filled."""
        parts = self._body.texts
        return parts[0] + "".join(fill + part for fill, part in zip(self.infills, parts[1:], strict=False))

    @property
    def finish_reasons(self) -> list[str]:
        return [completion.finish_reason or "" for completion in self.completions]

    def plan(self) -> Plan:
        """What the next hole's job is to do. Raises ``ContextLengthError`` where its prompt does not fit."""
        at = len(self.completions)
        prompt = self._encoder.encode_infill(self._body.texts, self.infills, self._body.files)
        seat = self._seat
        [plan] = make_plans(self._body, [prompt], self._encoder, seat.served.settings, seat.compiled)
        before = (self._body.texts[at] or "".join(self.infills[-1:]))[-1:]
        return replace(plan, params=replace(with_seed_of(plan.params, at), text_before=before))

    def submit(self, plan: Plan) -> None:
        """Start on the next hole."""
        job = Job(
            self.request_id,
            plan.prompt_ids,
            plan.params,
            # A later hole goes on with a request that has started: it may wait for its turn.
            queue_deadline_s=float("inf") if self.completions else self._seat.deadlines.queue_s,
            deadline_s=self._seat.deadlines.total_s,
            on_started=self._seat.start,
            on_event=self._news.set,
        )
        self._seat.submit(job)
        self.add(job)

    def read_all(self) -> list[Completion]:
        """Fill every hole; the first was submitted. Raises the error that ended one, if one did."""
        while True:
            while not self.completions[-1].has_ended:
                self.require_batch()
            if self.has_ended_well:
                return self.completions
            self.submit(self.plan())


def open_infilling(body: InfillBody, served: Served, context: WorkerContext) -> Infilling:
    """Take a seat at ``served`` and submit the first hole. Raises a ``RequestError``; the place is then free again."""
    with seated(context, served, "generate") as seat:
        model = cast(TextModel, seat.model)
        if not model.has_infill:
            raise UnsupportedParameterError(f"the model {model.name} does not fill holes: it has no infilling format")
        infilling = Infilling(body, seat, model)
        plan = infilling.plan()
    record().generation = infilling
    try:
        infilling.submit(plan)
    except BaseException as error:
        infilling.fail(error)
        raise
    return infilling
