"""The ways to run a model, as data: the first that gives what the plain model says serves.

A further one (a runner that replays GPU graphs, say) is one more entry of ``TEXT_STEPS``. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from app.core.errors import StartError
from app.core.logs.logging import get_logger
from app.core.settings import Settings
from app.core.tasks.task_table import SEQUENCE_HEAD, TASKS
from app.engine.checks.encoder_play import encoding_failure
from app.engine.checks.features import Model, bound_of
from app.engine.checks.ladder import Candidate, Step
from app.engine.checks.plain_cache import (
    counts_from_the_end,
    has_attention,
    has_plain_cache,
    has_states,
    has_windows,
    turning_length,
    window_room,
)
from app.engine.checks.plays import BRIEF, Play
from app.engine.checks.reference import tolerance_of
from app.engine.checks.rehearsal import rehearse
from app.engine.checks.seq2seq_play import source_failure
from app.engine.encoding.encoder_heads import pass_options
from app.engine.encoding.micro_batcher import MicroBatcher
from app.engine.engine_interface import Engine
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.serial import SerialEngine
from app.engine.runners.bucketed import BucketedRunner
from app.engine.runners.choose import RunnerKind, compiling_of, graph_runner, kinds_of, paged_runner
from app.engine.runners.compiled import runner_on
from app.engine.runners.eager import EagerRunner
from app.engine.runners.interface import Runner
from app.engine.runners.mixed import MixedRunner, can_mix
from app.engine.runners.placing.aligned import AlignedRunner
from app.engine.runners.states.state_runner import StateRunner
from app.engine.runners.windowed import WindowedRunner, can_attend
from app.engine.seq2seq.seq2seq_engine import Seq2SeqEngine
from app.models.checkpoint.layer_kinds import latent_rank, most_new_tokens, num_snapshots
from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.compiled_step import find_step
from app.models.compiled.inductor import use_private_folder
from app.models.compiled.large_weights import move_in_pieces
from app.models.encoders.encoder_model import EncoderModel
from app.models.encoders.seq2seq_model import Seq2SeqModel
from app.models.text_model import TextModel

log = get_logger("engine")


def on_slots(
    make_runner: Callable[[Checkpoint, int, int], Runner],
) -> Callable[[TextModel, Settings, Play], Candidate]:
    """How to attempt the batched engine with a runner of that kind: what is checked runs on the runner that serves."""

    def attempt(model: TextModel, settings: Settings, play: Play) -> Candidate:
        options = BatchOptions.of(settings, model.checkpoint.device)
        try:
            runner = make_runner(model.checkpoint, options.max_running, model.context_tokens)
        except StartError:
            raise
        except Exception as error:
            cause = f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            return Candidate(SerialEngine(model), cause)
        failure = None
        # As it will serve, and where there is time without the drafts, too.
        for num_drafts in {options.num_draft_tokens} if play is BRIEF else {0, options.num_draft_tokens}:
            played = replace(
                options, prefill_chunk_tokens=play.chunk_tokens, num_draft_tokens=num_drafts, adapts_drafts=False
            )
            failure = failure or played_by(BatchedEngine(model, played, runner), model, settings, play, num_drafts > 0)
        if runner.graphs is not None:
            failure = failure or runner.graphs.failure
        return Candidate(BatchedEngine(model, options, runner), failure, runner.left_out)

    return attempt


def played_by(engine: Engine, model: TextModel, settings: Settings, play: Play, repeats: bool = False) -> str | None:
    """What was wrong with a play in rows of our cache."""
    is_rounded = bound_of(settings) is not None
    tolerance = tolerance_of(model.checkpoint.dtype, is_rounded=is_rounded)
    return rehearse(engine, model, play, tolerance, is_strict=not is_rounded, repeats=repeats)


def one_by_one(model: TextModel, settings: Settings, play: Play) -> Candidate:
    """transformers' own loop. There is nothing below it, so rounding alone does not fail it."""
    dtype = model.checkpoint.dtype
    is_rounded = bound_of(settings) is not None
    tolerance = tolerance_of(dtype, is_rounded=is_rounded)
    is_strict = dtype == torch.float32 and not is_rounded
    failure = rehearse(SerialEngine(model), model, play, tolerance, is_strict=is_strict)
    return Candidate(SerialEngine(model), failure)


def together(model: EncoderModel, settings: Settings, play: Play) -> Candidate:
    """Texts of unlike lengths in one pass."""
    return Candidate(MicroBatcher(model), encoding_failure(MicroBatcher(model), model, settings, play))


def separately(model: EncoderModel, settings: Settings, play: Play) -> Candidate:
    """Each text in a pass of its own."""
    batcher = MicroBatcher(model, max_items=1)
    return Candidate(batcher, encoding_failure(MicroBatcher(model, max_items=1), model, settings, play))


def sources_together(model: Seq2SeqModel, settings: Settings, play: Play) -> Candidate:
    """As many texts made of others at once as the settings say."""
    return _on_sources(model, settings, play, settings.max_batch_size)


def sources_one_by_one(model: Seq2SeqModel, settings: Settings, play: Play) -> Candidate:
    """transformers' own way with a text."""
    return _on_sources(model, settings, play, 1)


def _on_sources(model: Seq2SeqModel, settings: Settings, play: Play, max_rows: int) -> Candidate:
    failure = source_failure(Seq2SeqEngine(model, max_rows=max_rows), model, settings, play)
    return Candidate(Seq2SeqEngine(model, max_rows=max_rows), failure)


def fits_rows(model: Model, _settings: Settings) -> bool:
    """Whether the model's own cache is one that rows can stand in for."""
    return isinstance(model, TextModel) and has_plain_cache(model)


def reads_from_the_end(model: Model, _settings: Settings) -> bool:
    """Whether rows have to end at one place."""
    return isinstance(model, TextModel) and counts_from_the_end(model)


def can_pad(model: Model) -> bool:
    """Whether texts of unlike lengths go through a pass: decoders with a classifier's head find the end of a text by
    the padding behind it, and transformers refuses batches where the config names no token for that."""
    named = model.checkpoint.model.config.get_text_config().pad_token_id
    reads_ends = TASKS[model.task].head == SEQUENCE_HEAD and bool(pass_options(model.checkpoint))
    return named is not None or not reads_ends


def has_package(model: Model, settings: Settings) -> bool:
    """Whether a compiled step fits the model; says in the log why not."""
    if settings.compile == "never" or not isinstance(model, TextModel):
        return False
    if not fits_rows(model, settings) and not has_windows(model):
        return False
    can_pass = has_rings(model, settings) or can_mix(model.checkpoint)
    found = find_step(model.checkpoint, settings) if can_pass else "its attention cannot be replaced"
    if isinstance(found, str):
        log.info("compiled_step_not_used", model=model.name, reason=found)
    return not isinstance(found, str)


def on_package(model: TextModel, settings: Settings, play: Play) -> Candidate:
    """Attempt the batched engine whose passes, or lone rows, are computed by compiled code."""
    move_in_pieces(model.checkpoint, lambda: None)
    step = find_step(model.checkpoint, settings)
    if isinstance(step, str):
        return Candidate(SerialEngine(model), f"has gone meanwhile: {step}")
    return on_slots(partial(runner_on, step, most_new=window_room(model, settings)))(model, settings, play)


def has_rings(model: Model, _settings: Settings) -> bool:
    """Whether rows of several kinds can stand in for the model's own cache."""
    return isinstance(model, TextModel) and has_windows(model) and can_attend(model.checkpoint)


def on_rings(model: TextModel, settings: Settings, play: Play) -> Candidate:
    """Attempt the batched engine with room for what a step reads of prompts or drafts beside what queries see."""
    return on_slots(partial(WindowedRunner, most_new=most_new_tokens(settings)))(model, settings, play)


def has_state_rows(model: Model, settings: Settings) -> bool:
    """Whether rows can hold what the model's layers keep; adapters are told which tokens of a pass are whose, and
    layers with states take them in another order.
    """
    if not isinstance(model, TextModel) or settings.adapters is not None or not has_states(model):
        return False
    return can_attend(model.checkpoint) or not has_attention(model)


def on_states(model: TextModel, settings: Settings, play: Play) -> Candidate:
    """Attempt the batched engine on rows of states; nothing is guessed, as no state can be taken back."""
    settings = settings.model_copy(update={"prompt_lookup": 0})
    make_runner = partial(StateRunner, most_new=most_new_tokens(settings), num_snapshots=num_snapshots(settings))
    try:
        return on_slots(make_runner)(model, settings, play)
    except ValueError as error:
        return Candidate(SerialEngine(model), str(error))


def is_meant(kind: RunnerKind, *, mixes: bool) -> Callable[[Model, Settings], bool]:
    """Whether runners of that kind are wanted for rows of a model whose other passes can mix, or cannot."""

    def is_possible(model: Model, settings: Settings) -> bool:
        is_wanted = kind in kinds_of(settings, model.checkpoint.device)
        return is_wanted and fits_rows(model, settings) and can_mix(model.checkpoint) == mixes

    return is_possible


def fits_blocks(model: Model, settings: Settings) -> bool:
    """Whether the model's rows can lie in blocks, with windows or without, and are wanted to."""
    # Latents of which layers make keys and values lie in whole rows alone.
    if latent_rank(model.checkpoint.model.config) is not None or "paged" not in kinds_of(
        settings, model.checkpoint.device
    ):
        return False
    return has_rings(model, settings) or (fits_rows(model, settings) and can_mix(model.checkpoint))


def on_blocks(model: TextModel, settings: Settings, play: Play) -> Candidate:
    """Attempt the batched engine on a cache in blocks; workers that share a GPU share what is free."""
    share, device = settings.gpu_memory_share / settings.workers_per_gpu, model.checkpoint.device
    if device.type == "cuda":
        use_private_folder(settings.cache_path)
    make_runner = partial(paged_runner, memory_share=share, compiling=compiling_of(settings, device))
    return on_slots(make_runner)(model, settings, play)


TEXT_STEPS: tuple[Step, ...] = (
    Step("paged", "mixed", fits_blocks, on_blocks),
    Step("graphs", "mixed", is_meant("graphs", mixes=True), on_slots(graph_runner)),
    Step("graphs", "batched", is_meant("graphs", mixes=False), on_slots(graph_runner)),
    Step("bucketed", "mixed", is_meant("bucketed", mixes=True), on_slots(BucketedRunner)),
    Step("bucketed", "batched", is_meant("bucketed", mixes=False), on_slots(BucketedRunner)),
    Step("compiled", "mixed", has_package, on_package),
    Step(
        "mixed",
        "mixed",
        lambda model, settings: fits_rows(model, settings) and can_mix(model.checkpoint),
        on_slots(MixedRunner),
    ),
    Step("aligned", "batched", reads_from_the_end, on_slots(AlignedRunner)),
    Step("batched", "batched", fits_rows, on_slots(EagerRunner)),
    Step("windowed", "mixed", has_rings, on_rings),
    Step("states", "mixed", has_state_rows, on_states),
    Step("serial", "serial", lambda _model, _settings: True, one_by_one),
)
ENCODER_STEPS = (
    Step("together", "encoder", lambda model, _settings: can_pad(model), together),
    Step("separately", "encoder", lambda _model, _settings: True, separately),
)
SEQ2SEQ_STEPS = (
    Step("batched", "batched", lambda _model, settings: settings.max_batch_size > 1, sources_together),
    Step("serial", "serial", lambda _model, _settings: True, sources_one_by_one),
)


def steps_of(model: Model, settings: Settings) -> list[Step]:
    """The ways that there are for ``model``, the fastest first; the last one is transformers' own."""
    steps = {"generate": TEXT_STEPS, "seq2seq": SEQ2SEQ_STEPS}.get(model.task, ENCODER_STEPS)
    length = turning_length(model) if isinstance(model, TextModel) else None
    if length is not None:
        reason = f"texts beyond {length} tokens are turned otherwise: FORKLIFT_MAX_CONTEXT_TOKENS={length} serves rows"
        log.warning("served_one_by_one", model=model.name, reason=reason)
    return [step for step in steps if step.is_possible(model, settings)]
