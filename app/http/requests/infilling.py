"""One infilling request: a place, and a job for each hole, one after another. HTTP threads."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from flask import request

from app.core.errors import ContextLengthError, UnsupportedParameterError
from app.core.jobs import Job
from app.core.patience import patient_until
from app.http.application.request_log import record
from app.http.requests.admitted import AdmittedRequest
from app.http.requests.admitting import Need, admit, model_param
from app.http.requests.completion import Completion
from app.http.requests.limits import naming
from app.http.requests.planning import Plan, make_plans, with_seed_of
from app.http.requests.running import RunningRequest
from app.http.schemas.infill_body import InfillBody
from app.serve.context import WorkerContext

if TYPE_CHECKING:
    from app.engine.loading.handle import ModelHandle
    from app.models.text_model import TextModel


class Infilling(RunningRequest):
    """Holes that are being filled from left to right, each prompt with what filled the ones before."""

    def __init__(self, body: InfillBody, admitted: AdmittedRequest, model: TextModel):
        news = threading.Event()
        super().__init__(record().request_id, admitted, model.name, request.environ, news, model.vocabulary)
        self._body = body
        self._encoder = model
        self._num_holes = len(body.texts) - 1
        self._num_unfilled = 0

    @property
    def has_ended_well(self) -> bool:
        """The place is kept until the last hole is filled, or those left have no room."""
        return len(self.completions) == self._num_holes and super().has_ended_well

    @property
    def context_tokens(self) -> int:
        return self._encoder.context_tokens

    @property
    def num_left(self) -> int:
        """Holes are filled one after another, in one place."""
        return 1

    @property
    def infills(self) -> list[str]:
        """What fills each hole; nothing where there was no room left for one."""
        return [completion.text for completion in self.completions] + [""] * self._num_unfilled

    @property
    def whole(self) -> str:
        """The parts with their holes filled."""
        parts = self._body.texts
        fills = [self._body.start + fill for fill in self.infills]
        return parts[0] + "".join(fill + part for fill, part in zip(fills, parts[1:], strict=False))

    @property
    def finish_reasons(self) -> list[str]:
        reasons = [completion.finish_reason or "" for completion in self.completions]
        return [*reasons, *["length"] * self._num_unfilled]

    def plan_first(self) -> Plan:
        """What the first hole's job is to do. Raises a ``RequestError`` also where a later hole has no room at all."""
        for at in range(1, self._num_holes):
            self._plan([""] * at)
        return self._plan([])

    def _plan(self, filled: list[str]) -> Plan:
        """What the next hole's job is to do. Raises ``ContextLengthError``, which names the field at fault."""
        try:
            return self._plan_with(filled, self._body.files)
        except ContextLengthError as error:
            if self._body.files and self._fits_without_files(filled):
                text = f"input_extra: {error.message.partition(': ')[2]}"
                raise ContextLengthError(text, param="input_extra") from None
            raise

    def _fits_without_files(self, filled: list[str]) -> bool:
        try:
            self._plan_with(filled, [])
        except ContextLengthError:
            return False
        return True

    def _plan_with(self, filled: list[str], files: list[tuple[str, str]]) -> Plan:
        admitted, at = self._admitted, len(filled)
        with patient_until(admitted.deadlines.total_s), naming(self._body.prompt_param):
            prompt = self._encoder.encode_infill(self._body.texts, filled, files, self._body.start)
        [plan] = make_plans(self._body, [prompt], self._encoder, admitted.handle.settings, admitted.compiled)
        before = (self._body.start or self._body.texts[at] or "".join(filled[-1:]))[-1:]
        return replace(plan, params=replace(with_seed_of(plan.params, at), text_before=before))

    def submit(self, plan: Plan) -> None:
        """Start on the next hole."""
        job = Job(
            self.request_id,
            plan.prompt_ids,
            plan.params,
            is_open=plan.is_open,
            # A later hole goes on with a request that has started: it may wait for its turn.
            queue_deadline_s=float("inf") if self.completions else self._admitted.deadlines.queue_s,
            deadline_s=self._admitted.deadlines.total_s,
            on_started=self._admitted.start,
            on_event=self._news.set,
        )
        self._admitted.submit(job)
        self.add(job)

    def read_all(self) -> list[Completion]:
        """Fill every hole; the first was submitted. Raises the error that ended one, if one did."""
        while True:
            while not self.completions[-1].has_ended:
                self.require_batch()
            if self.has_ended_well:
                return self.completions
            self._go_on()

    def _go_on(self) -> None:
        """Start on the next hole; where what fills the others leaves it no room, they are the answer."""
        try:
            plan = self._plan(self.infills)
        except ContextLengthError:
            self._num_unfilled = self._num_holes - len(self.completions)
            self._num_holes = len(self.completions)
            self._admitted.release()
        else:
            self.submit(plan)


def open_infilling(body: InfillBody, handle: ModelHandle, context: WorkerContext) -> Infilling:
    """Admit the request and submit the first hole. Raises a ``RequestError``; the place is then free again."""
    with admit(context, handle, "generate", need=Need(cache_salt=body.cache_salt)) as admitted:
        model = admitted.text_model
        if not model.has_infill:
            text = f"the model {model.name} does not fill holes: it has no infilling format"
            raise UnsupportedParameterError(text, param=model_param())
        infilling = Infilling(body, admitted, model)
        plan = infilling.plan_first()
    record().generation = infilling
    try:
        infilling.submit(plan)
    except BaseException as error:
        infilling.fail(error)
        raise
    return infilling
