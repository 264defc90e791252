"""A request to make texts from texts: a place for each, sources as token ids, a job for each text. HTTP threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from app.core.errors import ContextLengthError, InvalidParameterError, UnsupportedParameterError
from app.core.tasks.seq2seq_jobs import Seq2SeqJob
from app.core.work.sampling_params import SamplingParams
from app.http.requests.admitted import AdmittedRequest, Need
from app.http.requests.generating import Generate
from app.http.requests.limits import naming
from app.http.requests.opening import require_task
from app.http.requests.planning import with_seed_of
from app.http.requests.running import RunningRequest
from app.http.schemas.completions_body import CompletionsBody
from app.http.schemas.openai_fields import DEFAULTS
from app.http.schemas.seq2seq_bodies import ConversionBody

if TYPE_CHECKING:
    from app.models.encoders.languages import Instruction
    from app.models.encoders.seq2seq_model import Seq2SeqModel
    from app.models.text_model import TextModel

Instruct: TypeAlias = "Callable[[Seq2SeqModel], Instruction]"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the texts of a request are to be: ``changes`` of the checkpoint's settings, parameters, and bounds.

    ``bound``: most tokens, where the request says so; ``default``: where nobody does.
    """

    params: SamplingParams
    bound: int | None
    default: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    num_choices: int = 1
    is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class Convert:
    """Make a text from each text of ``body``; ``instruct`` says how the model is told what to do."""

    body: ConversionBody
    instruct: Instruct
    task: ClassVar[Literal["seq2seq"]] = "seq2seq"

    @property
    def need(self) -> Need:
        """A place for each text."""
        return Need(len(self.body.texts), "text")

    def plan(self, admitted: AdmittedRequest) -> RunningRequest:
        model, body = admitted.seq2seq_model, self.body
        told = self.instruct(model)
        with naming("text"):
            sources = [require_fit(model.read(text, told, body.cut), model, "text") for text in body.texts]
        params = body.params(model.defaults, body.stop)
        if body.is_drawn is None and model.searches_beams({**told.changes, **body.changes}):
            params = replace(params, temperature=0.0)
        default = admitted.handle.settings.default_new_tokens
        wanted = Wanted(params, body.max_new_tokens, default, {**told.changes, **body.changes})
        return plan_jobs(admitted, sources, replace(wanted, is_streamed=bool(body.stream)))


def plan_jobs(admitted: AdmittedRequest, sources: Sequence[list[int]], wanted: Wanted) -> RunningRequest:
    """The request with a job for each source and choice. Raises a ``RequestError``."""
    model, most = admitted.seq2seq_model, admitted.handle.settings.max_new_tokens
    decoding, bound = model.decoding(
        wanted.changes, is_sampled=wanted.params.temperature > 0, wanted=wanted.bound, default=wanted.default, most=most
    )
    _require_least(wanted.changes, bound)
    params = replace(wanted.params, max_new_tokens=bound)
    running = RunningRequest(admitted, wanted.num_choices)
    options = running.job_options(is_alone=len(sources) * wanted.num_choices == 1)
    each = [ids for ids in sources for _ in range(wanted.num_choices)]
    jobs = [
        Seq2SeqJob(
            running.request_id,
            ids,
            with_seed_of(params, index),
            decoding,
            is_streamed=wanted.is_streamed,
            **options,
        )
        for index, ids in enumerate(each)
    ]
    running.plan(jobs)
    return running


def require_fit(ids: list[int], model: Seq2SeqModel, param: str) -> list[int]:
    """``ids`` where they fit. Raises ``RequestError``."""
    if not ids:
        raise InvalidParameterError(f"{param}: must hold at least one token", param=param)
    if len(ids) > model.context_tokens:
        text = f"{param}: {len(ids)} tokens do not fit the context of {model.context_tokens} tokens"
        raise ContextLengthError(text, param=param)
    return ids


def _require_least(changes: Mapping[str, Any], bound: int) -> None:
    least = changes.get("min_new_tokens")
    if isinstance(least, int) and least > bound:
        text = f"min_new_tokens: is above the {bound} tokens that may be generated"
        raise InvalidParameterError(text, param="min_new_tokens")


# What a completion by an encoder-decoder model follows, beside hints and the form of the answer.
FOLLOWED = {
    *("prompt", "max_tokens", "n_predict", "model", "n", "best_of", "stream", "stream_options", "stop", "seed"),
    *("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "min_tokens", "stop_token_ids"),
    *("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier", "metadata", "store"),
    *("cache_salt", "cache_prompt"),
}
DRAWING = ("top_p", "top_k", "min_p", "typical_p")


@dataclass(frozen=True, slots=True)
class CompletePrompts:
    """Continue the prompts of ``body``, or make a text from each where the model is an encoder-decoder one.

    Where a request asks for no way of drawing, such a model's own settings hold; a temperature above 0 draws.
    """

    body: CompletionsBody
    encode: Callable[[TextModel], Any]
    task: ClassVar[None] = None

    @property
    def need(self) -> Need:
        """A place for each sequence."""
        return Generate(self.body, self.encode).need

    def plan(self, admitted: AdmittedRequest) -> RunningRequest:
        if admitted.model.task != "seq2seq":
            require_task(admitted.handle, "generate")
            return Generate(self.body, self.encode).plan(admitted)
        model, body = admitted.seq2seq_model, self.body
        require_followed(body)
        with naming("prompt"):
            sources = [self._source(prompt, model) for prompt in body.prompts]
        settings = admitted.handle.settings
        length = body.length(settings)
        params = body.sampling(DEFAULTS, max_new_tokens=0)
        changes: dict[str, Any] = {"min_new_tokens": body.min_tokens} if body.min_tokens else {}
        if body.repetition_penalty is not None:
            changes["repetition_penalty"] = body.repetition_penalty
        if body.temperature is None and all(getattr(body, name) in (None, -1, 0, 1) for name in DRAWING):
            params = replace(params, temperature=0.0)
        params = replace(params, repetition_penalty=1.0, min_new_tokens=0)
        bound = length.wanted or length.default or model.target_tokens
        wanted = Wanted(params, bound, bound, changes, body.num_choices, bool(body.stream))
        return plan_jobs(admitted, sources, wanted)

    def _source(self, prompt: str | list[int], model: Seq2SeqModel) -> list[int]:
        ids = model.read(prompt) if isinstance(prompt, str) else model.checked(prompt)
        return require_fit(ids, model, "prompt")


def require_followed(body: CompletionsBody) -> None:
    """Raise ``UnsupportedParameterError`` for a field that asks an encoder-decoder model for what it does not do."""
    for name in sorted(body.model_fields_set - FOLLOWED):
        if getattr(body, name):
            text = f"{name}: is not followed with an encoder-decoder model"
            raise UnsupportedParameterError(text, param=name)
    if body.is_ranked:
        raise UnsupportedParameterError("best_of: is not followed with an encoder-decoder model", param="best_of")
