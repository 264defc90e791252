"""Finds the fastest way to serve a model that says what the plain model says.

The plain model is the one that transformers built, before anything of ours touched it: it gives the reference. Then
every feature is applied, and the ways to run it are tried from the fastest down. What fails is left out, one thing
after the other, with the weights loaded anew where they are gone; where nothing is left to leave out the load fails
with one line. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from app.core.errors import ModelLoadError, StartError
from app.core.logs.logging import get_logger
from app.core.settings import Settings
from app.core.states import EngineName
from app.engine.checks.features import FEATURES, Feature, Model, bound_of
from app.engine.checks.plays import FULL, CheckClock, Play, play_within
from app.engine.checks.reference import are_sound, check_weights, departure, plain_results, probe_tokens
from app.engine.engine_interface import Engine
from app.models.checkpoint.device_memory import free_bytes
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.unloading import give_back
from app.models.encoders.encoder_model import EncoderModel
from app.models.encoders.seq2seq_model import Seq2SeqModel
from app.models.text_model import TextModel
from app.models.tokens.token_positions import counts_from_tokens
from app.models.weights.quantization import model_bytes

NUM_REFERENCE_TOKENS = 32

log = get_logger("engine")


@dataclass(frozen=True)
class Candidate:
    """An engine to serve with, and what is wrong with it, None: nothing was found.

    ``left_out`` names parts of it that were wrong, and that it does without.
    """

    engine: Engine
    failure: str | None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One way to run a model; ``engine`` is what callers are told.

    ``attempt`` makes the engine and compares what it does in the play with plain forward passes.
    """

    name: str
    engine: EngineName
    is_possible: Callable[[Model, Settings], bool]
    attempt: Callable[[Any, Settings, Play], Candidate]


@dataclass(frozen=True)
class Chosen:
    """The way that serves, and the names of what failed before it; ``settings`` without what was left out.

    ``left_out`` is what the check had no time for.
    """

    model: Model
    engine: Engine
    engine_name: EngineName
    dropped: tuple[str, ...]
    settings: Settings
    check_s: float
    left_out: tuple[str, ...]


@dataclass
class Trial:
    """A model with its reference; ``applied`` are the features that have changed it since.

    ``clock`` runs since its load began; ``play`` is what there is time for.
    """

    model: Model
    settings: Settings
    tokens: list[int]
    reference: torch.Tensor
    applied: list[Feature]
    clock: CheckClock
    play: Play = FULL

    def departure(self) -> str | None:
        """How its own forward pass departs from the reference, if further than it may."""
        found = plain_results(self.model.checkpoint, self.tokens)
        is_rounded = any(feature.name == "quantized" for feature in self.applied)
        bound = bound_of(self.settings) if is_rounded else None
        return departure(found, self.reference, self.model.checkpoint.dtype, bound)


class Ladder:
    """One load. ``load`` reads the weights; ``steps_of`` says which ways there are to run a model, the fastest first.

    ``promised_bytes`` are free, but kept for others.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings], Checkpoint],
        steps_of: Callable[[Model, Settings], list[Step]],
        promised_bytes: int = 0,
    ):
        self._settings = settings
        self._load = load
        self._steps_of = steps_of
        self._promised_bytes = promised_bytes
        self._dropped: list[str] = []
        self._trial: Trial | None = None
        self._plain_bytes = 0
        self._earlier_s = 0.0

    def climb(self) -> Chosen:
        """The way to serve. Raises ``StartError``."""
        chosen = None
        while chosen is None:
            chosen = self._attempt(self._begin())
        if chosen.left_out:
            log.warning(
                "check_shortened", model=chosen.model.name, left_out=list(chosen.left_out), check_s=chosen.check_s
            )
        if self._dropped:
            log.warning(
                "serving_on_lower_step",
                model=chosen.model.name,
                engine=chosen.engine_name,
                dropped=list(chosen.dropped),
            )
        return chosen

    def _attempt(self, trial: Trial) -> Chosen | None:
        """The first way that is right; None where a feature was left out, and the weights are to be loaded anew."""
        failure = self._apply(trial, self._wanted(trial)) or self._departure(trial)
        if failure is None:
            return self._search(trial)
        self._drop_feature(trial, failure)
        return None

    def _search(self, trial: Trial) -> Chosen | None:
        steps = [step for step in self._steps_of(trial.model, trial.settings) if step.name not in self._dropped]
        last_failure: str | None = None
        for step in steps:
            candidate = self._examine(step, trial)
            if candidate.failure is None:
                self._dropped += candidate.left_out
                return self._chosen(trial, step, candidate.engine)
            if step is steps[-1]:
                last_failure = candidate.failure
            elif trial.applied:
                last_failure = self._examine(steps[-1], trial).failure
            if last_failure is None:
                self._drop(trial, step.name, candidate.failure)
            elif trial.applied:
                self._drop_feature(trial, candidate.failure)
                return None
        raise ModelLoadError(
            f"the model {trial.model.name} does not answer as its own forward pass says, in no way to run it: "
            f"{last_failure}"
        )

    def _chosen(self, trial: Trial, step: Step, engine: Engine) -> Chosen:
        check_s = round(self._earlier_s + trial.clock.check_s, 2)
        dropped, left_out = tuple(self._dropped), trial.play.left_out
        return Chosen(trial.model, engine, step.engine, dropped, trial.settings, check_s, left_out)

    def _examine(self, step: Step, trial: Trial) -> Candidate:
        with trial.clock.timed():
            return step.attempt(trial.model, trial.settings, trial.play)

    def _departure(self, trial: Trial) -> str | None:
        """How its plain pass departs; what that took says which play there is time for. Encoders' plays are brief."""
        with trial.clock.timed():
            try:
                failure = trial.departure()
            except Exception as error:
                failure = f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        if isinstance(trial.model, TextModel):
            trial.play = play_within(trial.clock.remaining_s, trial.clock.last_s)
        return failure

    def _begin(self) -> Trial:
        """A model as transformers builds it, and what it says. Raises ``StartError``."""
        settings = self._settings
        if self._trial is not None:
            self._earlier_s += self._trial.clock.check_s
            self._make_room(self._trial.model.checkpoint.device)
        if "quantized" in self._dropped:
            settings = settings.model_copy(update={"quantization": "none"})
        clock = CheckClock()
        model = model_of(self._load(settings), settings)
        with clock.timed():
            self._trial = trial = Trial(model, settings, *reference_of(model), [], clock)
        self._plain_bytes = self._plain_bytes or model_bytes(model.checkpoint.model)
        return trial

    def _make_room(self, device: torch.device) -> None:
        """Let go of weights that are to be read again. Raises ``ModelLoadError`` where they do not fit."""
        self._trial = None
        give_back(device)
        free = free_bytes(device) - self._promised_bytes
        if "quantized" in self._dropped and self._plain_bytes > free:
            raise ModelLoadError(
                f"FORKLIFT_QUANTIZATION={self._settings.quantization} changes what this model says too much, and "
                f"without it the model needs {self._plain_bytes / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free"
            )

    def _wanted(self, trial: Trial) -> list[Feature]:
        return [one for one in FEATURES if one.name not in self._dropped and one.is_wanted(trial.model, trial.settings)]

    def _apply(self, trial: Trial, features: list[Feature]) -> str | None:
        """Apply features; what one raised, which then is the last of those applied. Raises ``StartError``."""
        for feature in features:
            trial.applied.append(feature)
            try:
                feature.apply(trial.model, trial.settings)
            except StartError:
                raise
            except Exception as error:
                return f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return None

    def _drop_feature(self, trial: Trial, failure: str) -> None:
        """Leave out the feature that the fault came with."""
        features = list(trial.applied)
        if not features:
            raise ModelLoadError(f"the model {trial.model.name} does not say the same thing twice: {failure}")
        name = trial.model.name
        del trial
        at_fault = self._at_fault(features) if len(features) > 1 else features[0]
        self._dropped.append(at_fault.name)
        log.warning("step_failed_check", model=name, step=at_fault.name, reason=failure)

    def _at_fault(self, features: list[Feature]) -> Feature:
        """The first of ``features`` that does not leave the model as it was, tried one after the other."""
        trial = self._begin()
        last = self._steps_of(trial.model, trial.settings)[-1]
        for feature in features[:-1]:
            if self._apply(trial, [feature]) or self._departure(trial) or self._examine(last, trial).failure:
                return feature
        return features[-1]

    def _drop(self, trial: Trial, name: str, reason: str) -> None:
        self._dropped.append(name)
        log.warning("step_failed_check", model=trial.model.name, step=name, reason=reason)


def model_of(checkpoint: Checkpoint, settings: Settings) -> Model:
    """The checkpoint as the other packages see it."""
    if checkpoint.task == "generate":
        return TextModel(
            settings.model_name,
            checkpoint,
            settings.max_context_tokens,
            settings.chat_template,
            calls=settings.tool_calls,
            reasoning=settings.reasoning,
        )
    kind = Seq2SeqModel if checkpoint.task == "seq2seq" else EncoderModel
    return kind(settings.model_name, checkpoint, settings.max_context_tokens)


def reference_of(model: Model) -> tuple[list[int], torch.Tensor]:
    """A few tokens, and what the plain model says of them. Raises ``ModelLoadError`` where it says nothing."""
    check_weights(model.name, model.checkpoint)
    tokens = probe_tokens(model, min(NUM_REFERENCE_TOKENS, model.context_tokens))
    try:
        reference = plain_results(model.checkpoint, tokens)
    except Exception as error:
        cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise ModelLoadError(f"the model {model.name} does not run: {cause}") from error
    if isinstance(model, TextModel) and counts_from_tokens(model.checkpoint.model):
        log.warning("positions_count_from_0", model=model.name, reason="generate gives them, and we answer as it does")
    if not are_sound(reference):
        raise ModelLoadError(f"the model {model.name} gives NaN or infinity in {model.dtype}")
    return tokens, reference
