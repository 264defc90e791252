"""The inference thread as the HTTP threads see it, so that this room imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from app.core.encoder_jobs import Encoded
from app.core.jobs import BaseJob, Constraint, Grammar
from app.core.model_tables import Task
from app.core.settings import Settings
from app.core.states import ModelState
from app.serve.context import WorkerContext

Message = dict[str, Any]
WORK: dict[Task, str] = {"generate": "generate text", "fill-mask": "fill masks", "embeddings": "make embeddings"}


class SamplingDefaults(Protocol):
    """The model's ``generation_config.json``, greedy where it is silent."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def repetition_penalty(self) -> float: ...


class Vocabulary(Protocol):
    """Tokens one by one (``app/models/tokens/vocabulary.py``)."""

    @property
    def drops_space(self) -> bool: ...
    def is_special(self, token: int) -> bool: ...
    def token_bytes(self, token: int) -> bytes: ...
    def text_bytes(self, token: int) -> bytes: ...
    def text(self, tokens: list[int]) -> str: ...


class Constraints(Protocol):
    """Structured output (``app/models/grammars/constraints.py``)."""

    def compiled(self, constraint: Constraint, scope: str, patience: Callable[[], None]) -> Grammar: ...


class EndedPrompt(Protocol):
    """A prompt that brings end tokens of its own, as infilling formats do."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def stop_ids(self) -> frozenset[int]: ...


class KvMemory(Protocol):
    """Memory of the KV cache."""

    @property
    def bytes_per_token(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...


class ServedModel(Protocol):
    """A loaded model of any task; its methods may be called by any thread."""

    name: str
    created_s: int
    context_tokens: int
    vocab_size: int

    @property
    def task(self) -> Task: ...
    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def dtype(self) -> str: ...
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...
    def token_strings(self, ids: list[int]) -> list[str]: ...
    def detokenize(self, ids: list[int]) -> str: ...


class EncoderModel(ServedModel, Protocol):
    """A loaded encoder."""

    num_dimensions: int

    def encode_masked(self, text: str) -> list[int]: ...
    def num_masks(self, ids: list[int]) -> int: ...
    def filled(self, ids: list[int], encoded: Encoded) -> list[Any]: ...


class TextModel(ServedModel, Protocol):
    """A loaded language model."""

    eos_ids: frozenset[int]

    @property
    def constraints(self) -> Constraints: ...
    @property
    def has_tool_template(self) -> bool: ...
    @property
    def defaults(self) -> SamplingDefaults: ...
    @property
    def has_chat_template(self) -> bool: ...
    @property
    def has_infill(self) -> bool: ...
    def encode_infill(
        self, parts: Sequence[str], filled: Sequence[str], files: Sequence[tuple[str, str]] = (), start: str = ""
    ) -> EndedPrompt: ...
    def encode_chat(self, messages: list[Message], tools: list[dict[str, Any]] | None = None) -> list[int]: ...


class ModelLease(Protocol):
    """One request's use of a model; as long as it lasts the model stays loaded."""

    def wait(self, timeout_s: float) -> ServedModel | None:
        """The model; None where it is not loaded yet. Raises the ``RequestError`` that keeps it from being."""

    def submit(self, job: BaseJob) -> None: ...
    def release(self) -> None: ...


class ModelHandle(Protocol):
    """A model that requests can name, loaded or not (``app/engine/loading/handle.py``)."""

    @property
    def name(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def task(self) -> Task | None:
        """None until it is known."""

    @property
    def state(self) -> ModelState: ...
    @property
    def model(self) -> ServedModel | None:
        """None while it is not loaded; a request that needs it takes a ``ModelLease``."""

    @property
    def engine_name(self) -> str | None:
        """The way that the loaded model is run; None while it is not loaded."""

    @property
    def dropped(self) -> list[str] | None:
        """What failed the check at the load and was left out."""

    @property
    def quantization(self) -> str: ...
    @property
    def is_on_demand(self) -> bool: ...
    @property
    def kv_memory(self) -> KvMemory | None: ...
    def lease(self) -> ModelLease: ...


class Inference(Protocol):
    """Where work goes."""

    @property
    def handles(self) -> Sequence[ModelHandle]: ...


def served_by(context: WorkerContext) -> Sequence[ModelHandle]:
    """The models of the context's worker, in the order of the settings."""
    return cast(Inference, context.inference).handles
