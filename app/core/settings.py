"""All settings, read once from the environment and frozen.

One field per ``FORKLIFT_`` variable with type, default, unit and bounds; the reference page and
the CLI derive from the field descriptions. Unknown names stop the start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from app.core.errors import SettingsError
from app.core.model_tables import (
    IDLE_UNLOAD_S,
    MAX_NAME_LENGTH,
    ModelTable,
    one_line,
    read_tables,
)
from app.core.parsing.addresses import parse_addresses, parse_grpc_address
from app.core.parsing.environment import PREFIX, describe, read_environment
from app.core.parsing.hosts import default_hosts
from app.core.parsing.sizes import parse_memory_limits
from app.core.system.certificates import check_pair
from app.core.system.small_files import read_small_file, why_unreadable
from app.core.tasks.task_table import Task

__all__ = ["PREFIX", "ModelPlan", "Settings", "load_settings"]

# What the layers that are not quantised compute in.
COMPUTES_IN = {"int8": "float32", "int4": "bfloat16", "file": "bfloat16"}
DEMO_MODEL = Path(__file__).resolve().parents[1] / "models" / "demo"
# Threads beyond running and waiting requests: health checks and error answers must find one.
THREAD_HEADROOM = 8
# Draft tokens of a step where their number adapts.
MOST_ADAPTED = 8
MAX_TEMPLATE_BYTES = 1_000_000
_PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
# What MODELS says of each model by itself.
OF_ONE_MODEL = ("model", "model_name", "revision", "trust_remote_code", "chat_template", "adapters")


CallFormName = Literal[
    "auto",
    "hermes",
    "qwen_coder",
    "llama_json",
    "llama_python",
    "mistral",
    "glm",
    "deepseek",
    "dsml",
    "kimi",
    "minimax",
    "gemma",
    "harmony",
    "granite",
    "lfm2",
    "cohere",
    "phi",
    "nemotron",
    "jamba",
    "seed_oss",
    "olmo",
    "internlm",
    "apertus",
    "xlam",
]
ReasoningFormName = Literal[
    "auto", "none", "think", "magistral", "granite", "gemma", "harmony", "hunyuan", "seed", "cohere", "apertus"
]


@dataclass(frozen=True)
class ModelPlan:
    """One model to be served: its name, its own settings, and when it is loaded; ``task`` None: detected."""

    name: str
    settings: Settings
    task: Task | None = None
    load: Literal["resident", "on_demand"] = "resident"
    idle_unload_s: float = IDLE_UNLOAD_S


class Settings(BaseModel):
    """Settings of one server; build with ``load_settings``.

    A plain model and not pydantic-settings: that reads ``os.environ`` whenever an instance is
    made, and here the environment is an argument.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = Field(str(DEMO_MODEL), description="Path or hub id of the model to serve.")
    model_name: str = Field("", description="Name in /v1/models and in answers; default: last part of MODEL.")
    models: str | None = Field(
        None, description="Path of a TOML file with several models, instead of MODEL; see docs/models-several.md."
    )
    bind: str = Field(
        "0.0.0.0:5000",
        description="Addresses to listen on, with commas between: host:port, host (port 5000), [::]:port, unix:path.",
    )
    registry: str = Field(
        "",
        repr=False,
        description="Where this server announces itself, as zookeeper://h1,h2:2181/forklift; see docs/scale.md.",
    )
    announce_url: str = Field(
        "", description="URL that it is announced by; default: from BIND, with the address that reaches the registry."
    )
    zone: str = Field("", max_length=200, description="Where it stands; clients can prefer servers of their own zone.")
    weight: int = Field(100, ge=1, le=10_000, description="Its share of the calls, beside that of other servers.")
    path_prefix: str = Field(
        "", description="Path that everything lies under, as /llm; the probes answer without it, too."
    )
    workers: int = Field(0, ge=0, le=256, description="Worker processes; 0: one per GPU group, or 1 on CPU.")
    gpus_per_worker: int = Field(1, ge=1, le=64, description="GPUs that one worker sees.")
    workers_per_gpu: int = Field(1, ge=1, le=64, description="Workers that share one GPU.")
    max_memory: str = Field(
        "", description="Most memory for weights per device, as `0=20GiB,cpu=30GiB`; see docs/models.md."
    )
    offload_folder: str | None = Field(
        None, description="Allows weights that fit no device to be read from disk at every pass; scratch space."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto never falls back to CPU silently.")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field("auto", description="auto: the checkpoint's.")
    quantization: Literal["none", "int8", "int4", "file"] = Field(
        "none",
        description="Linear layers on the CPU. int8: near lossless, rest in float32. int4: least memory, in bfloat16."
        " file: as a GGUF file has them, which is also what none means for one, with DTYPE=auto.",
    )
    pack_weights: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Weights on the CPU in the layout of its kernels, projections of one input merged: faster, but not"
        " shared between workers; auto: with one worker.",
    )
    adapters: str | None = Field(
        None, description="Folder of LoRA adapters in PEFT's form, a folder each, whose name is a model's name."
    )
    adapters_max_bytes: int = Field(
        1 << 30, ge=1, description="Memory of a model's adapters, in bytes; the least recently used ones are dropped."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that lies beside the weights.")
    revision: str | None = Field(None, description="Revision of a hub id.")
    max_batch_size: int = Field(1, ge=1, le=1024, description="Sequences that one worker decodes together.")
    max_context_tokens: int = Field(4096, ge=2, description="Prompt plus completion; never above the model's own.")
    max_new_tokens: int | None = Field(
        None, ge=1, description="Upper bound of new tokens per request; larger wishes are lowered to it."
    )
    default_new_tokens: int = Field(128, ge=1, description="New tokens where a request does not say.")
    prefill_chunk_tokens: int = Field(256, ge=1, description="Prompt tokens per prefill step.")
    prompt_lookup: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = Field(
        0, description="Draft tokens per step copied from the prompt; auto: up to 8 while that pays; 0: off."
    )
    decode_runner: Literal["eager", "bucketed"] = Field(
        "eager", description="bucketed: fixed tensor shapes per step, groundwork for GPUs; slower on a CPU."
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Decode by code compiled for the model. auto: from a package that fits, or one that is made while"
        " the server serves; always: the start waits for it; see docs/models.md.",
    )
    cache_dir: str = Field(
        "", description="Folder of compiled packages, writable by its owner alone; default: ~/.cache/forklift."
    )
    cache_max_bytes: int = Field(
        1_000_000_000, ge=0, description="Most that CACHE_DIR may hold; the least recently used packages leave."
    )
    overlap_text: bool = Field(
        False, description="Make a step's text while the next step runs. For GPUs; on a CPU it only delays the text."
    )
    prefix_cache: bool = Field(True, description="Reuse KV entries of a shared prompt prefix, within one API key.")
    max_queue: int = Field(10, ge=0, le=100_000, description="Sequences waiting over all workers.")
    queue_timeout_s: float = Field(30.0, gt=0, le=86_400, description="504 after waiting this long.")
    request_timeout_s: float = Field(300.0, gt=0, le=86_400, description="504 after this total time.")
    drain_timeout_s: float = Field(30.0, ge=0, le=3600, description="Time that running requests get after SIGTERM.")
    load_timeout_s: float = Field(1800.0, gt=0, description="A model load that takes longer ends the worker.")
    stall_timeout_s: float = Field(120.0, gt=0, description="No token for this long while active ends the worker.")
    body_timeout_s: float = Field(20.0, gt=0, le=3600, description="408 when head and body take longer.")
    write_timeout_s: float = Field(30.0, gt=0, le=3600, description="A client that reads nothing this long is dropped.")
    max_body_bytes: int = Field(2_000_000, ge=1, description="Larger bodies are refused with 413.")
    unknown_fields: Literal["error", "warn"] = Field(
        "error", description="error: 400 for an unknown field; warn: left out, named in X-Ignored-Fields and the log."
    )
    api_keys: tuple[str, ...] = Field((), repr=False, description="Comma-separated bearer keys.")
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Names in Host that are answered, comma-separated, `*.name` for all below one; default: loopback's"
        " own when BIND is loopback, else any.",
    )
    cors_origins: tuple[str, ...] = Field(
        (), description="Origins whose pages may call from a browser, comma-separated; `*`: all."
    )
    system_prompt: str | None = Field(None, description="Default system message of chat.")
    chat_template: str | None = Field(None, description="Path of a Jinja chat template instead of the model's own.")
    tool_calls: CallFormName = Field("auto", description="Form of tool calls; auto: told by template and tokens.")
    reasoning: ReasoningFormName = Field(
        "auto",
        description="Form of reasoning in answers; auto: told by template and tokens; none: it stays in the text.",
    )
    http_threads: int = Field(0, ge=0, le=4096, description="0: MAX_BATCH_SIZE + MAX_QUEUE + 8.")
    grpc_bind: str = Field(
        "",
        description="Address of the gRPC port, such as 127.0.0.1:50051; empty: none. Needs the extra grpc.",
    )
    tls_cert: str | None = Field(None, description="Certificate chain in PEM; with TLS_KEY the server speaks HTTPS.")
    tls_key: str | None = Field(None, description="Private key in PEM, without a password.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json: one object per line; console: for reading; auto: console on a terminal, else json."
    )
    log_prompts: bool = Field(
        False, description="Write prompts and completions to the log, and exceptions that may quote them."
    )

    _plans: tuple[ModelPlan, ...] = PrivateAttr(())

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        keys = tuple(key.strip() for key in value.split(",") if key.strip())
        if not keys:
            raise ValueError("is set and holds no key; unset it to serve everybody")
        return keys

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("bind")
    @classmethod
    def _check_bind(cls, value: str) -> str:
        parse_addresses(value)
        return value

    @field_validator("grpc_bind")
    @classmethod
    def _check_grpc_bind(cls, value: str) -> str:
        return parse_grpc_address(value) if value else value

    @field_validator("path_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        path = value.rstrip("/")
        if path and not _PATH_PREFIX.fullmatch(path):
            raise ValueError("is no path such as /llm")
        return path

    @field_validator("model_name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not value.strip() or not value.isprintable() or len(value) > MAX_NAME_LENGTH:
            raise ValueError(f"{value[:MAX_NAME_LENGTH]!r} cannot be the name of a model")
        return value

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: dict[str, object]) -> dict[str, object]:
        values = {name: value for name, value in values.items() if value != "" or name == "api_keys"}
        if values.get("models") and (given := [name for name in OF_ONE_MODEL if name in values]):
            raise ValueError(f"{given[0].upper()} is for one model; with MODELS say it in the file")
        model = str(values.get("model") or DEMO_MODEL)
        values.setdefault("model_name", "forklift-demo" if model == str(DEMO_MODEL) else name_of(model))
        return values

    @model_validator(mode="after")
    def _check(self) -> Settings:
        self._follow()
        if self.max_new_tokens is not None and self.default_new_tokens > self.max_new_tokens:
            raise ValueError("DEFAULT_NEW_TOKENS is above MAX_NEW_TOKENS")
        if self.quantization != "none" and self.dtype not in ("auto", computes := COMPUTES_IN[self.quantization]):
            raise ValueError(f"QUANTIZATION={self.quantization} computes in {computes}; DTYPE cannot be {self.dtype}")
        if (gpu := max((d for d in self.memory_limits if isinstance(d, int)), default=0)) >= self.gpus_per_worker:
            raise ValueError(f"MAX_MEMORY names GPU {gpu}; a worker's GPUs count from 0 to GPUS_PER_WORKER - 1")
        if self.quantization != "none" and (self.max_memory or self.offload_folder):
            raise ValueError("QUANTIZATION does not go with MAX_MEMORY or OFFLOAD_FOLDER")
        if self.adapters is not None and self.decode_runner != "eager":
            raise ValueError(f"ADAPTERS does not go with DECODE_RUNNER={self.decode_runner}")
        if self.adapters is not None and self.compile == "always":
            raise ValueError("ADAPTERS does not go with COMPILE=always: a compiled step computes without adapters")
        if self.gpus_per_worker > 1 and self.workers_per_gpu > 1:
            raise ValueError("GPUS_PER_WORKER and WORKERS_PER_GPU cannot both be above 1")
        return self

    def _follow(self) -> None:
        """A default that nobody set gives way to a bound that somebody set."""
        if self.max_new_tokens is not None and "default_new_tokens" not in self.model_fields_set:
            self.__dict__["default_new_tokens"] = min(self.default_new_tokens, self.max_new_tokens)

    @model_validator(mode="after")
    def _check_tls(self) -> Settings:
        if self.tls_cert and self.tls_key:
            check_pair(self.tls_cert, self.tls_key)
        elif self.tls_cert or self.tls_key:
            raise ValueError("TLS_CERT and TLS_KEY are needed together")
        return self

    @field_validator("max_memory")
    @classmethod
    def _check_limits(cls, value: str) -> str:
        parse_memory_limits(value)
        return value

    @field_validator("chat_template")
    @classmethod
    def _require_file(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                read_small_file(value, MAX_TEMPLATE_BYTES)
            except FileNotFoundError:
                raise ValueError(f"the file {value} does not exist") from None
            except OSError as error:
                raise ValueError(f"the file {value} cannot be read: {why_unreadable(value, error)}") from None
        return value

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that are answered; empty: any."""
        return self.allowed_hosts or default_hosts(parse_addresses(self.bind))

    @property
    def num_draft_tokens(self) -> int:
        """The most tokens that are guessed for a step."""
        return MOST_ADAPTED if self.prompt_lookup == "auto" else self.prompt_lookup

    @property
    def cache_path(self) -> Path:
        """The folder of what can be made anew."""
        return Path(self.cache_dir or "~/.cache/forklift").expanduser()

    @property
    def has_tls(self) -> bool:
        """Whether the server speaks HTTPS."""
        return self.tls_cert is not None

    @model_validator(mode="after")
    def _read_models(self) -> Settings:
        if self.models is not None:
            self._plans = tuple(self._plan(name, table) for name, table in read_tables(self.models).items())
        return self

    def _plan(self, name: str, table: ModelTable) -> ModelPlan:
        # What nobody set stays unset, so that it can follow what the table says.
        common = self.model_dump(exclude={"models", "bind", *OF_ONE_MODEL}, exclude_unset=True)
        try:
            own = Settings.model_validate(
                {**common, **table.own_settings, "model": table.path, "model_name": name}, strict=True
            )
        except ValidationError as error:
            raise SettingsError(f"{self.models}: [{name}] {one_line(error)}") from None
        return ModelPlan(name, own, table.task, table.load, table.idle_unload_s)

    @property
    def plans(self) -> tuple[ModelPlan, ...]:
        """The models to be served, in the order of the file; the one of MODEL where there is no file."""
        return self._plans or (ModelPlan(self.model_name, self),)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to listen, in the form that Gunicorn takes."""
        return parse_addresses(self.bind)

    @property
    def max_running(self) -> int:
        """Sequences that one worker decodes together, over all its models."""
        return sum(plan.settings.max_batch_size for plan in self.plans)

    @property
    def memory_limits(self) -> dict[int | str, int]:
        """Bytes that MAX_MEMORY allows per device; empty where it is silent."""
        return parse_memory_limits(self.max_memory) if self.max_memory else {}

    @property
    def num_http_threads(self) -> int:
        """Threads per worker that parse, wait and write."""
        return self.http_threads or self.max_running + self.max_queue + THREAD_HEADROOM


def name_of(model: str) -> str:
    """Last part of a path or hub id; for ``.`` and the like the name of the folder that is meant.

    A GGUF file's is that without its ending.
    """
    name = Path(model).name
    return Path(model).resolve().name if name in ("", ".", "..") else name.removesuffix(".gguf")


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from ``environ`` (default: the process's). Raises ``SettingsError`` with one line."""
    given = read_environment(os.environ if environ is None else environ, Settings.model_fields)
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        raise SettingsError(describe(error, Settings.model_fields)) from None
