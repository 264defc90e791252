"""A request to generate: a place for each sequence, prompts as token ids, a job for each completion. HTTP threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from app.core.work.jobs import Job
from app.http.requests.admitted import AdmittedRequest, Need
from app.http.requests.limits import naming
from app.http.requests.planning import Plan, make_plans
from app.http.requests.running import RunningRequest
from app.http.schemas.sampling_fields import SamplingOptions

if TYPE_CHECKING:
    from app.models.text_model import TextModel
    from app.models.tokens.infill import InfillPrompt

# The token ids of each prompt of one request; all are generated for with the request's own options.
Encode: TypeAlias = "Callable[[TextModel], Sequence[list[int] | InfillPrompt]]"


@dataclass(frozen=True, slots=True)
class Generate:
    """``options.num_choices`` completions for each prompt, prompt by prompt."""

    options: SamplingOptions
    encode: Encode
    task: ClassVar[Literal["generate"]] = "generate"

    @property
    def need(self) -> Need:
        """A place for each sequence."""
        param = "n" if self.options.num_choices > 1 else self.options.prompt_param
        return Need(self.options.num_sequences, param, self.options.cache_salt)

    def plan(self, admitted: AdmittedRequest) -> RunningRequest:
        model = admitted.text_model
        with naming(self.options.prompt_param):
            prompts = self.encode(model)
        plans = make_plans(self.options, prompts, model, admitted.handle.settings, admitted.compiled)
        running = RunningRequest(admitted, self.options.num_choices)
        running.plan(make_jobs(plans, running, is_streamed=bool(self.options.stream)))
        return running


def make_jobs(plans: Sequence[Plan], running: RunningRequest, *, is_streamed: bool = True) -> list[Job]:
    """The jobs of one request."""
    options = running.job_options(is_alone=len(plans) == 1)
    return [
        Job(
            running.request_id,
            plan.prompt_ids,
            plan.params,
            is_streamed=is_streamed,
            is_open=plan.is_open,
            **options,
        )
        for plan in plans
    ]
