"""What probes, capabilities and the address itself answer; see ``native_types``. Types only."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from app.core.states import EngineName, ModelState, WeightFormat, WorkerState
from app.core.tasks.task_table import Task
from app.http.answers.native_types import LlamaCppSettings


class Props(TypedDict):
    """A model as llama.cpp's plugins ask for it."""

    default_generation_settings: LlamaCppSettings
    total_slots: int
    model_alias: str
    model_path: str
    build_info: str


class Alive(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class KvCache(TypedDict):
    """Memory of the KV cache."""

    bytes_per_token: int
    max_bytes: int


class Slot(TypedDict):
    """One worker slot."""

    slot: int
    pid: int | None
    gpus: list[str]
    state: WorkerState
    num_running: int
    num_waiting: int


class Engine(TypedDict):
    """The way that a model is run, and what failed the check at its load."""

    model: str
    task: Task | None
    state: ModelState
    engine: EngineName | None
    dropped: list[str] | None
    compiled: bool | None
    compiling: bool


class RegistryState(TypedDict):
    """How a server stands in its registry."""

    id: str
    connected: bool


class Registered(TypedDict):
    """There only where the server has a registry."""

    registry: NotRequired[RegistryState]


class Readiness(Registered):
    """Whether this server can take work."""

    state: WorkerState
    progress: float
    kv_cache: KvCache | None
    engines: list[Engine]
    slots: list[Slot]


class Health(Readiness):
    """Readiness, and a word for those who look for one."""

    status: Literal["ok", "loading", "draining", "failed"]


class Bounds(TypedDict):
    """What a JSON schema says of a value beside its type."""

    description: NotRequired[str]
    minimum: NotRequired[float]
    maximum: NotRequired[float]
    exclusiveMinimum: NotRequired[float]
    exclusiveMaximum: NotRequired[float]
    minLength: NotRequired[int]
    maxLength: NotRequired[int]
    maxItems: NotRequired[int]
    enum: NotRequired[list[Any]]


class Parameter(Bounds):
    """Types and bounds of a field."""

    type: list[str]
    required: bool


class AdapterChange(TypedDict):
    """A LoRA adapter that was put into service, or taken out of it."""

    status: str
    lora_name: str
    model: str


class Adapters(TypedDict):
    """LoRA adapters of a model, and what they may take."""

    names: list[str]
    max_bytes: int


class Memory(TypedDict):
    """Measured memory of the worker that answers."""

    process_rss_bytes: int


class ModelCapabilities(TypedDict):
    """What a model can do, within which bounds; null where only a loaded model could tell."""

    id: str
    object: Literal["model.capabilities"]
    state: ModelState
    load: Literal["resident", "on_demand"]
    task: Task | None
    context_tokens: int | None
    vocab_size: int | None
    dtype: str | None
    quantization: str
    format: WeightFormat | None
    adapters: Adapters | None
    engine: EngineName | None
    dropped: list[str] | None
    compiled: bool | None
    supports: dict[str, bool] | None
    tool_calls: str | None
    reasoning: str | None
    defaults: dict[str, float] | None
    limits: dict[str, float | None]
    kv_cache: KvCache | None
    memory: Memory
    routes: dict[str, dict[str, Parameter]]


class CapabilitiesList(TypedDict):
    """The served models."""

    object: Literal["list"]
    data: list[ModelCapabilities]


class Pointer(TypedDict):
    """Where to go on."""

    name: str
    version: str
    routes: list[str]


class Markup(TypedDict):
    """A text as HTML."""

    html: str
