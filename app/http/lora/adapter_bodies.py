"""Bodies of ``/v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``, as vLLM has them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.http.schemas.strict import StrictBody

AdapterField = Annotated[str, Field(min_length=1, max_length=200, description="Name of a folder in FORKLIFT_ADAPTERS.")]


class LoadAdapterBody(StrictBody):
    """Which adapter is to be served."""

    lora_name: AdapterField
    lora_path: str | None = Field(None, max_length=4096, description="The folder itself, in FORKLIFT_ADAPTERS.")
    load_inplace: bool | None = Field(None, description="Read it anew where it is served already.")
    model: str | None = Field(None, description="Its base, where several models take adapters.")


class UnloadAdapterBody(StrictBody):
    """Which adapter is to be served no more."""

    lora_name: AdapterField
