"""The body of ``POST /v1/fim/completions``, as Mistral's API has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from app.core.settings import Settings
from app.core.work.sampling_params import SamplingDefaults
from app.http.schemas.llama_cpp_fields import is_unbounded, one_bound
from app.http.schemas.openai_fields import OpenAIOptions
from app.http.schemas.sampling_fields import Length

if TYPE_CHECKING:
    from app.models.text_model import TextModel


class FimBody(OpenAIOptions):
    """Text with a hole at its end, or before the suffix. Silent sampling fields take the model's own values."""

    prompt: str = Field(description="Text before the hole.")
    suffix: str | None = Field(None, description="Text behind it. Default: none, which is a completion.")
    max_tokens: int | None = Field(None, ge=0, description="Most tokens to generate. Default: DEFAULT_NEW_TOKENS.")
    random_seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="Mistral's name for seed.")

    @model_validator(mode="after")
    def _check(self) -> FimBody:
        one_bound(self, "seed", "random_seed")
        one_bound(self, "max_tokens", "n_predict")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The one prompt."""
        return [self.prompt]

    @property
    def prompt_param(self) -> str:
        return "suffix" if len(self.suffix or "") > len(self.prompt) else "prompt"

    @property
    def given_seed(self) -> int | None:
        return one_bound(self, "seed", "random_seed")[1]

    def length(self, settings: Settings) -> Length:
        name, bound = one_bound(self, "max_tokens", "n_predict")
        return Length(name, None, None) if is_unbounded(bound) else Length(name, bound, settings.default_new_tokens)

    def defaults(self, model: TextModel) -> SamplingDefaults:
        return model.defaults
