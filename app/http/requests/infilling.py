"""A request to fill holes: a place, and a job for each hole, one after another. HTTP threads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from app.core.errors import ContextLengthError, UnsupportedParameterError
from app.core.patience import patient_until
from app.core.work.job_events import FinishReason
from app.core.work.jobs import Job
from app.http.application.request_log import record
from app.http.requests.admitted import AdmittedRequest, Need
from app.http.requests.job_output import JobOutput
from app.http.requests.limits import naming
from app.http.requests.planning import Plan, make_plans, with_seed_of
from app.http.requests.running import RunningRequest
from app.http.schemas.infill_body import InfillBody


class Infilling(RunningRequest):
    """Holes that are being filled from left to right, each prompt with what filled the ones before."""

    def __init__(self, body: InfillBody, admitted: AdmittedRequest):
        super().__init__(admitted)
        self._body = body
        self._encoder = admitted.text_model
        self._num_holes = len(body.texts) - 1
        self._num_unfilled = 0

    @property
    def has_ended_well(self) -> bool:
        """The place is kept until the last hole is filled, or those left have no room."""
        return len(self.outputs) == self._num_holes and super().has_ended_well

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
        return [output.text for output in self.outputs] + [""] * self._num_unfilled

    @property
    def whole(self) -> str:
        """The parts with their holes filled."""
        parts = self._body.texts
        fills = [self._body.start + fill for fill in self.infills]
        return parts[0] + "".join(fill + part for fill, part in zip(fills, parts[1:], strict=False))

    @property
    def finish_reasons(self) -> list[FinishReason]:
        unfilled: list[FinishReason] = ["length"] * self._num_unfilled
        return [*(output.reason for output in self.outputs), *unfilled]

    def plan_holes(self) -> None:
        """Plan the first hole's job. Raises a ``RequestError`` also where a later hole has no room at all."""
        for at in range(1, self._num_holes):
            self._plan([""] * at)
        self.plan([self._job(self._plan([]))])

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

    def _job(self, plan: Plan) -> Job:
        options = self.job_options(is_alone=False)
        if self.outputs:
            # A later hole goes on with a request that has started: it may wait for its turn.
            options["queue_deadline_s"] = float("inf")
        return Job(self.request_id, plan.prompt_ids, plan.params, is_open=plan.is_open, **options)

    def read_all(self) -> list[JobOutput]:
        """Fill every hole; the first was submitted. Raises the error that ended one, if one did."""
        while True:
            while not self.outputs[-1].has_ended:
                self.require_batch()
            if self.has_ended_well:
                return self.outputs
            self._go_on()

    def _go_on(self) -> None:
        """Start on the next hole; where what fills the others leaves it no room, they are the answer."""
        try:
            plan = self._plan(self.infills)
        except ContextLengthError:
            self._num_unfilled = self._num_holes - len(self.outputs)
            self._num_holes = len(self.outputs)
            self._admitted.release()
        else:
            self._submit(self._job(plan))


@dataclass(frozen=True, slots=True)
class FillHoles:
    """Fill the holes of ``body``."""

    body: InfillBody
    task: ClassVar[Literal["generate"]] = "generate"

    @property
    def need(self) -> Need:
        """Holes are filled one after another, in one place."""
        return Need(cache_salt=self.body.cache_salt)

    def plan(self, admitted: AdmittedRequest) -> Infilling:
        model = admitted.text_model
        if not model.has_infill:
            text = f"the model {model.name} does not fill holes: it has no infilling format"
            raise UnsupportedParameterError(text, param=record().model_param)
        infilling = Infilling(self.body, admitted)
        infilling.plan_holes()
        return infilling
