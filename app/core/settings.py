"""All settings, read once from the environment and frozen.

Checks what no field can check by itself, and answers what follows from several. Unknown names stop the start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import PrivateAttr, ValidationError, field_validator, model_validator

from app.core.configuration.model_tables import (
    IDLE_UNLOAD_S,
    MAX_NAME_LENGTH,
    ModelTable,
    one_line,
    read_tables,
)
from app.core.configuration.setting_fields import DEMO_MODEL, SettingFields
from app.core.errors import SettingsError
from app.core.parsing.addresses import parse_addresses, parse_grpc_address
from app.core.parsing.environment import PREFIX, describe, read_environment
from app.core.parsing.hosts import default_hosts
from app.core.parsing.sizes import parse_memory_limits
from app.core.system.certificates import check_pair
from app.core.system.small_files import read_small_file, why_unreadable
from app.core.tasks.task_table import Task

__all__ = ["DEMO_MODEL", "PREFIX", "ModelPlan", "Settings", "load_settings"]

# What the layers that are not quantised compute in.
COMPUTES_IN = {"int8": "float32", "int4": "bfloat16", "file": "bfloat16", "fp8": "bfloat16"}
# Threads beyond running and waiting requests: health checks and error answers must find one.
THREAD_HEADROOM = 8
# Draft tokens of a step where their number adapts.
MOST_ADAPTED = 8
MAX_TEMPLATE_BYTES = 1_000_000
_PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
# What MODELS says of each model by itself.
OF_ONE_MODEL = ("model", "model_name", "revision", "trust_remote_code", "chat_template", "adapters")


@dataclass(frozen=True)
class ModelPlan:
    """One model to be served: its name, its own settings, and when it is loaded; ``task`` None: detected."""

    name: str
    settings: Settings
    task: Task | None = None
    load: Literal["resident", "on_demand"] = "resident"
    idle_unload_s: float = IDLE_UNLOAD_S


class Settings(SettingFields):
    """Settings of one server, checked against each other; build with ``load_settings``."""

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
