"""Plays a few texts on the engine of an encoder-decoder model, and compares every token with plain forward passes.

Sources of unlike lengths, together as they will be served: likeliest tokens, and what the checkpoint's own settings
(beams, forced tokens) do runs as well. Inference thread only.
"""

from __future__ import annotations

from typing import Any

import torch

from app.core.settings import Settings
from app.core.tasks.seq2seq_jobs import Decoding, Seq2SeqJob
from app.core.work.job_events import Finished, TextDelta, TokenLogprob
from app.core.work.sampling_params import SamplingParams
from app.engine.checks.features import bound_of
from app.engine.checks.plays import Play
from app.engine.checks.reference import probe_tokens, range_of, tolerance_of
from app.engine.checks.rehearsal import NUM_COMPARED, StrictGuard, advance, choice_error
from app.engine.engine_interface import Engine
from app.models.encoders.seq2seq_model import Seq2SeqModel

# Everything that changes logits, switched off: what is left is what a plain pass gives.
PLAIN_DECODING: dict[str, Any] = {
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length"), 0),
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty"), 1.0),
    **dict.fromkeys(("bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens")),
    **dict.fromkeys(("begin_suppress_tokens", "sequence_bias", "min_new_tokens", "exponential_decay_length_penalty")),
    **dict.fromkeys(("remove_invalid_values", "renormalize_logits"), False),
}


def source_failure(engine: Engine, model: Seq2SeqModel, settings: Settings, play: Play) -> str | None:
    """What was wrong, in words; None where each token was right within what rounding may change."""
    engine.guard = StrictGuard(model.checkpoint.device)
    tolerance = tolerance_of(model.checkpoint.dtype, is_rounded=bound_of(settings) is not None)
    num_tokens = min(max(play.new_tokens), model.target_tokens)
    lengths = (play.num_long, play.num_short, play.num_other)
    sources = [probe_tokens(model, min(length, model.context_tokens)) for length in lengths]
    own, _ = model.decoding({}, is_sampled=False, wanted=num_tokens, default=num_tokens)
    plain = [_job(source, num_tokens, Decoding(PLAIN_DECODING), num_logprobs=NUM_COMPARED) for source in sources]
    try:
        for job in [*plain, *(_job(source, num_tokens, own) for source in sources[:2])]:
            engine.add(job)
        advance(engine, lambda: not engine.has_work)
        found = [problem for job in plain if (problem := _wrong_in(job, model, tolerance)) is not None]
    except Exception as error:
        return f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return found[0] if found else None


def _job(source: list[int], num_tokens: int, decoding: Decoding, num_logprobs: int | None = None) -> Seq2SeqJob:
    params = SamplingParams(num_tokens, num_logprobs=num_logprobs)
    return Seq2SeqJob("self-check", source, params, decoding, is_streamed=False)


@torch.inference_mode()
def _wrong_in(job: Seq2SeqJob, model: Seq2SeqModel, tolerance: float) -> str | None:
    events = job.next_events(0)
    if not isinstance(events[-1], Finished):
        return "a request failed"
    generated: list[TokenLogprob] = [
        entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs
    ]
    begin = [model.start_id, *(entry.token for entry in generated[:-1])]
    device = model.checkpoint.device
    source, target = (torch.tensor([ids], device=device) for ids in (job.prompt_ids, begin))
    output = model.checkpoint.model(
        input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=target, use_cache=False
    )
    logits = output.logits[0].float().cpu()
    errors = [choice_error(entry, row) for entry, row in zip(generated, logits, strict=True)]
    if not errors or not max(errors) <= tolerance * range_of(logits):
        return f"tokens are not what a plain forward pass gives, by up to {max(errors, default=0):.2g}"
    return None
