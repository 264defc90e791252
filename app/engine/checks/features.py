"""What we do to a model's weights, as data: each can be left out where it gives other answers than the plain model.

A further one (compiled layers, say) is one more entry of ``FEATURES``. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from app.core.logs.logging import get_logger
from app.core.settings import Settings
from app.engine.checks.plain_cache import has_plain_cache, has_states, has_windows
from app.engine.checks.reference import BOUNDS, TOLERANCE, Bound, distance, probe_tokens
from app.models.compiled.compiled_step import (
    decodes_many,
    find_step,
    has_better_code,
    is_missing,
    may_lie_plain,
    rows_to_pack_for,
)
from app.models.compiled.package_facts import AnyShape
from app.models.compiled.package_maker import Wish, has_made
from app.models.compiled.steps.step_graph import model_shape
from app.models.encoders.encoder_code import find_layers, install, layers_shape, states_of
from app.models.encoders.encoder_model import EncoderModel
from app.models.encoders.native_encoder import NativeEncoder
from app.models.encoders.seq2seq_model import Seq2SeqModel
from app.models.encoders.unpadded import can_unpad, unpad
from app.models.text_model import TextModel
from app.models.weights.fused.fused_layers import fuse_layers, lay_for_code
from app.models.weights.packing import MANY_ROWS, owns_weights, pack, unpack_in_pieces, wants_packing
from app.models.weights.quantization import model_bytes, quantize
from app.models.weights.wide_linear import wants_widening, widen

Model = TextModel | Seq2SeqModel | EncoderModel

# Tokens of each text of the pass that compiled layers of an encoder are compared on.
LENGTHS = (19, 7, 2)

log = get_logger("engine")


@dataclass(frozen=True)
class Feature:
    """``apply`` changes the model in place, in the order of ``FEATURES``; what it replaced is gone then.

    ``is_wanted`` is asked of the model as it was built.
    """

    name: str
    is_wanted: Callable[[Model, Settings], bool]
    apply: Callable[[Model, Settings], object]


def wants_fusing(model: Model, settings: Settings) -> bool:
    """Merged weights belong to this process, and pay where sequences decode in rows."""
    has_rows = isinstance(model, TextModel) and (has_plain_cache(model) or has_windows(model) or has_states(model))
    return has_rows and owns_weights(model.checkpoint, settings)


def fuse(model: Model, settings: Settings) -> None:
    """Fuse layers in place; where code may come to serve, weights lie as it reads them."""
    fuse_layers(model.checkpoint)
    if settings.compile != "never":
        lay_for_code(model.checkpoint)


def quantize_and_tell(model: Model, settings: Settings) -> None:
    """Quantise in place and say what it saved; codes lie as a compiled step takes them, where one serves alone.

    With COMPILE=always such a step is waited for first.
    """
    before = model_bytes(model.checkpoint.model)
    quantize(model.checkpoint, settings.quantization, settings.max_batch_size)
    after = model_bytes(model.checkpoint.model)
    log.info("quantized", model=model.name, to=settings.quantization, bytes_before=before, bytes_after=after)
    if isinstance(model, TextModel) and settings.compile != "never" and may_lie_for_code(model, settings):
        if settings.compile == "always":
            wait_for_package(model, settings)
        if has_better_code(model.checkpoint, settings):
            unpack_in_pieces(model.checkpoint, lambda: None)


def pack_unless_compiled(model: Model, settings: Settings) -> None:
    """Lay the weights out for the kernels, except where a compiled step takes them as they lie.

    With COMPILE=always such a step is waited for first.
    """
    if isinstance(model, TextModel) and settings.compile == "always":
        wait_for_package(model, settings)
    if not serves_compiled_rows_only(model, settings):
        pack(model.checkpoint, num_rows=num_rows_of(model, settings))


def num_rows_of(model: Model, settings: Settings) -> int:
    """For how many tokens of a pass at most weights are laid out; an encoder's texts have many."""
    if isinstance(model, EncoderModel):
        return rows_to_pack_for(layers_shape(model.checkpoint.model), settings, MANY_ROWS)
    shape = model_shape(model.checkpoint) if isinstance(model, TextModel) else "it makes texts of others"
    return rows_to_pack_for(shape, settings, settings.max_batch_size)


def wait_for_package(model: TextModel, settings: Settings) -> None:
    """Have a package made where none fits; half of the time that the load may take is for that."""
    shape = model_shape(model.checkpoint)
    if not isinstance(shape, str) and (has_plain_cache(model) or has_windows(model)):
        wait_for(shape, model, settings)


def wait_for(shape: AnyShape, model: Model, settings: Settings) -> None:
    """The same for a shape that can have one."""
    if not is_missing(shape, settings):
        return
    wish = Wish(settings, shape, model_bytes(model.checkpoint.model), promised_bytes=0)
    failure = has_made(wish, within_s=settings.load_timeout_s / 2)
    if failure is not None:
        log.warning("package_not_made", model=model.name, reason=failure)


def serves_compiled_rows_only(model: Model, settings: Settings) -> bool:
    """Whether no more rows decode together than a package takes that fits the model, whose layers are fused by now."""
    if not isinstance(model, TextModel) or settings.compile == "never" or not may_lie_for_code(model, settings):
        return False
    step, shape = find_step(model.checkpoint, settings), model_shape(model.checkpoint)
    if isinstance(step, str) or isinstance(shape, str):
        return False
    return step.is_for_all or not decodes_many(shape, settings)


def may_lie_for_code(model: TextModel, settings: Settings) -> bool:
    """Whether the model's weights may lie as compiled code reads them."""
    shape = model_shape(model.checkpoint)
    return not isinstance(shape, str) and may_lie_plain(shape, settings)


def wants_unpadding(model: Model, _settings: Settings) -> bool:
    """On a CPU arithmetic is what a pass costs, padding included."""
    return (
        isinstance(model, EncoderModel) and model.checkpoint.device.type == "cpu" and can_unpad(model.checkpoint.model)
    )


def unpad_encoder(model: Model, _settings: Settings) -> None:
    """Have texts run without padding; heads that label a whole text may need its first token alone."""
    unpad(model.checkpoint.model, reads_states=model.task not in ("classify", "rerank", "zero-shot"))


def wants_layers(model: Model, settings: Settings) -> bool:
    """Whether there could be compiled code for the layers of an encoder."""
    if not isinstance(model, EncoderModel) or settings.compile == "never" or settings.quantization != "none":
        return False
    return not isinstance(layers_shape(model.checkpoint.model), str)


def compile_encoder(model: Model, settings: Settings) -> None:
    """Have the layers run on compiled code where a package fits; with COMPILE=always it is waited for.

    Raises ``ValueError`` where it computes something else.
    """
    assert isinstance(model, EncoderModel), "is asked before"
    checkpoint = model.checkpoint.model
    shape = layers_shape(checkpoint)
    if settings.compile == "always" and not isinstance(shape, str):
        wait_for(shape, model, settings)
    native = find_layers(checkpoint, settings)
    if isinstance(native, str):
        log.info("compiled_step_not_used", model=model.name, reason=native)
        return
    if (failure := layers_departure(model, native)) is not None:
        raise ValueError(failure)
    install(checkpoint, native)


def layers_departure(model: EncoderModel, native: NativeEncoder) -> str | None:
    """How states on the code depart from eager ones, if further than they may."""
    rows = [probe_tokens(model, min(length, model.context_tokens)) for length in LENGTHS]
    expected, found = (states_of(model, rows, one) for one in (None, native))
    share, bound = float(distance(found, expected).max()), TOLERANCE[model.checkpoint.dtype]
    return None if share <= bound else f"states differ by {share:.2g} of their range from eager ones"


FEATURES = (
    Feature("unpadded", wants_unpadding, unpad_encoder),
    Feature("fused", wants_fusing, fuse),
    Feature("quantized", lambda _, settings: settings.quantization != "none", quantize_and_tell),
    Feature(
        "packed",
        lambda model, settings: settings.quantization == "none" and wants_packing(model.checkpoint, settings),
        pack_unless_compiled,
    ),
    Feature(
        "widened",
        lambda model, settings: settings.quantization == "none" and wants_widening(model.checkpoint),
        lambda model, _: widen(model.checkpoint),
    ),
    Feature("compiled", wants_layers, compile_encoder),
)


def bound_of(settings: Settings) -> Bound | None:
    """How far the settings' weights may be from the plain ones; None: by rounding of one dtype only."""
    return BOUNDS.get(settings.quantization)
