"""What each job of a request is to do: all that needs both the body and the model. HTTP threads.

Whatever the model cannot do is refused here, on the CPU and before anything is submitted: a token id
outside the vocabulary would poison a CUDA context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from app.core.errors import InvalidParameterError
from app.core.parsing.token_ids import require_token_ids
from app.core.settings import Settings
from app.core.work.sampling_params import Constraint, Grammar, SamplingParams
from app.http.requests.limits import num_new_tokens
from app.http.schemas.sampling_fields import SamplingOptions

if TYPE_CHECKING:
    from app.models.text_model import TextModel
    from app.models.tokens.infill import InfillPrompt

Compile = Callable[[Constraint], Grammar]

# Of one answer: a token's own and those of the best in its place. As JSON each takes up to a hundred bytes.
MAX_LOGPROB_ENTRIES = 400_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What one job is to do."""

    prompt_ids: list[int]
    params: SamplingParams
    is_open: bool = False


def make_plans(
    options: SamplingOptions,
    prompts: Sequence[list[int] | InfillPrompt],
    model: TextModel,
    settings: Settings,
    compiled: Compile,
) -> list[Plan]:
    """``options.num_choices`` plans for each prompt, prompt by prompt, under one grammar. Raises a ``RequestError``."""
    check(options, model)
    _check_answer_size(options, prompts, model, settings)
    first = prompts[0] if prompts and isinstance(prompts[0], list) else []
    constraint = options.constraint_of(model, first)
    grammar = None if constraint is None else compiled(constraint)
    bad_words = encode_bad_words(options.banned_words, model)
    is_open = options.length(settings).is_open
    plans: list[Plan] = []
    for prompt in prompts:
        prompt_ids, stop_ids = (prompt, frozenset[int]()) if isinstance(prompt, list) else (prompt.ids, prompt.stop_ids)
        num_new = num_new_tokens(options, len(prompt_ids), model.context_tokens, settings)
        params = options.sampling(options.defaults(model), num_new)
        ends = params.stop_token_ids | stop_ids
        params = replace(
            params, bad_words=bad_words, stop_token_ids=ends, grammar=grammar, **options.reading(model, prompt_ids)
        )
        _check_least(options, num_new)
        for _ in range(options.num_choices):
            plans.append(Plan(prompt_ids, with_seed_of(params, len(plans)), is_open))
    return plans


def with_seed_of(params: SamplingParams, index: int) -> SamplingParams:
    """The parameters of the choice of this index: choices of a seeded request differ by their seeds."""
    return params if params.seed is None else replace(params, seed=params.seed + index)


def check(options: SamplingOptions, model: TextModel) -> None:
    """Raise a ``RequestError`` that names the field which this model cannot follow."""
    require_token_ids(options.stop_token_ids or [], model.vocab_size, "stop_token_ids")
    require_token_ids(map(int, options.logit_bias or {}), model.vocab_size, "logit_bias")


def encode_bad_words(words: Iterable[str], model: TextModel) -> tuple[tuple[int, ...], ...]:
    """Each word as it is written at the start of a text and after a space, as transformers documents."""
    spellings = [spelling for word in words for spelling in (word, f" {word}")]
    encoded = [tuple(model.encode(spelling, add_special_tokens=False)) for spelling in spellings]
    return tuple(dict.fromkeys(ids for ids in encoded if ids))


def _check_answer_size(
    options: SamplingOptions, prompts: Sequence[list[int] | InfillPrompt], model: TextModel, settings: Settings
) -> None:
    """Log-probabilities take a hundred times the room of their tokens: what one answer may hold is bounded."""
    if options.num_logprobs is None and options.num_prompt_logprobs is None:
        return
    num_entries = 0
    for prompt in prompts:
        num_prompt = len(prompt if isinstance(prompt, list) else prompt.ids)
        num_new = num_new_tokens(options, num_prompt, model.context_tokens, settings)
        num_entries += num_new * (1 + (options.num_logprobs or 0))
        if options.num_prompt_logprobs is not None:
            num_entries += num_prompt * (1 + options.num_prompt_logprobs)
    if num_entries * options.num_choices > MAX_LOGPROB_ENTRIES:
        text = (
            f"logprobs: the answer could hold more than {MAX_LOGPROB_ENTRIES} log-probabilities; ask for fewer tokens"
        )
        raise InvalidParameterError(f"{text}, choices or alternatives", param="logprobs")


def _check_least(options: SamplingOptions, num_new: int) -> None:
    if options.least_tokens > num_new:
        param = options.least_tokens_param
        raise InvalidParameterError(f"{param}: is above the {num_new} tokens that may be generated", param=param)
