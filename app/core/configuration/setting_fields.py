"""The fields of the settings: one per ``FORKLIFT_`` variable with type, default, unit and bounds.

What fields say of each other is checked in ``app.core.settings``; the reference page and the CLI derive from the
descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DEMO_MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"

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


class SettingFields(BaseModel):
    """What can be set, each by itself.

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
    quantization: Literal["none", "int8", "int4", "file", "fp8"] = Field(
        "none",
        description="Linear layers. On the CPU int8: near lossless, rest in float32. int4: least memory, in bfloat16."
        " file: as a GGUF file or a quantised checkpoint has them, which is also what none means for one, with"
        " DTYPE=auto. On a GPU int8, fp8: weights alone, by torchao where it is installed; see docs/gpu.md.",
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
    decode_runner: Literal["auto", "eager", "bucketed", "graphs", "paged"] = Field(
        "auto",
        description="How decoding steps are made. graphs: in fixed shapes, recorded as CUDA graphs; paged: the same"
        " on a KV cache in blocks; bucketed: the shapes alone; auto: on a GPU paged, else graphs, whichever holds at"
        " the load, elsewhere eager. On a CPU all but eager are slower.",
    )
    gpu_memory_share: float = Field(
        0.9, gt=0, le=1, description="Most of what is free after a load that a KV cache in blocks takes."
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
    overlap_text: bool | Literal["auto"] = Field(
        "auto",
        description="Launch the next step before a step's tokens are read and their text is made, where it does not"
        " depend on them. auto: on a GPU; on a CPU it only delays the text.",
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
