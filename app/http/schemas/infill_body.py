"""Body of ``/infill``: texts with holes between them, in three forms."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.settings import Settings
from app.http.schemas.generation_options import GenerationOptions
from app.http.schemas.llama_cpp_fields import HINT, LlamaCppFields, is_unbounded, one_bound
from app.http.schemas.sampling_fields import MAX_CHOICES, Length
from app.http.schemas.strict import StopString, StrictBody

MAX_HOLES = 32
MAX_FILES = 64
MAX_INDENT = 200
UNNAMED = "unnamed"


class ExtraFile(StrictBody):
    """Another file, for context."""

    text: str = Field(description="Its content.")
    filename: str | None = Field(None, description="Its name.")
    time: float | Annotated[list[int], Field(max_length=4)] | None = Field(None, description=HINT)


class InfillBody(LlamaCppFields, GenerationOptions):
    """A hole between prefix and suffix, or one between each two parts."""

    prefix: str | None = Field(None, description="Text before the hole. Default, with a suffix: nothing.")
    suffix: str | None = Field(None, description="Text behind the hole. Default, with a prefix: nothing.")
    parts: Annotated[list[str], Field(min_length=2, max_length=MAX_HOLES + 1)] | None = Field(
        None, description="Texts with a hole between each two, filled from left to right."
    )
    input_prefix: str | None = Field(None, description="llama.cpp's name for prefix.")
    input_suffix: str | None = Field(None, description="llama.cpp's name for suffix.")
    input_extra: Annotated[list[ExtraFile], Field(max_length=MAX_FILES)] | None = Field(
        None, description="Other files, for context."
    )

    prompt: str | None = Field(None, description="llama.cpp's; how what fills a single hole begins.")
    n_indent: int | None = Field(
        None,
        ge=0,
        le=MAX_INDENT,
        description="llama.cpp's; the completion ends before a line indented by less. 0: off.",
    )
    n_cmpl: int | None = Field(None, ge=1, le=MAX_CHOICES, description="llama.cpp's; most completions: one is made.")

    @model_validator(mode="after")
    def _one_form(self) -> InfillBody:
        forms = [form for form in FORMS if any(getattr(self, name) is not None for name in form)]
        if not forms:
            raise InvalidParameterError("prefix: is missing; send prefix and suffix, or parts", param="prefix")
        if len(forms) > 1:
            name = next(name for name in forms[1] if getattr(self, name) is not None)
            raise InvalidParameterError(f"{name}: cannot be sent together with {forms[0][0]}", param=name)
        one_bound(self, *BOUNDS)
        self._check_choices()
        return self

    def _check_choices(self) -> None:
        if self.num_choices != 1:
            raise UnsupportedParameterError("n: infilling makes one choice", param="n")
        if self.num_logprobs is not None:
            raise UnsupportedParameterError("logprobs: infilling tells none", param="logprobs")
        if self.stream and len(self.texts) > 2:
            raise UnsupportedParameterError("stream: only a single hole can be streamed", param="stream")
        if self.prompt and self.parts is not None:
            raise UnsupportedParameterError("prompt: only with a single hole", param="prompt")

    @property
    def texts(self) -> list[str]:
        """The parts, whichever form they came in."""
        if self.parts is not None:
            return self.parts
        return [self.prefix or self.input_prefix or "", self.suffix or self.input_suffix or ""]

    @property
    def files(self) -> list[tuple[str, str]]:
        """Name and text of the other files."""
        return [(file.filename or UNNAMED, file.text) for file in self.input_extra or []]

    @property
    def start(self) -> str:
        """How what fills the hole begins."""
        return self.prompt or ""

    @property
    def is_llama_cpp(self) -> bool:
        """Whether the caller speaks as llama.cpp's plugins do, and reads its answer's fields."""
        return self.parts is None and any(getattr(self, name) is not None for name in LLAMA_CPP)

    def length(self, settings: Settings) -> Length:
        name, bound = one_bound(self, *BOUNDS)
        return Length(name, None, None) if is_unbounded(bound) else Length(name, bound, settings.default_new_tokens)

    @property
    def patterns(self) -> list[StopString]:
        return [*super().patterns, rf"\n[ \t]{{0,{self.n_indent - 1}}}[^ \t]"] if self.n_indent else super().patterns

    @property
    def prompt_param(self) -> str:
        """The longer text of the form that was sent."""
        form = next(form for form in FORMS if any(getattr(self, name) is not None for name in form))
        return max(form, key=lambda name: len(getattr(self, name) or ""))


FORMS = (("prefix", "suffix"), ("parts",), ("input_prefix", "input_suffix"))
BOUNDS = ("max_new_tokens", "n_predict")
LLAMA_CPP = ("input_prefix", "input_suffix", "n_predict", "samplers", "response_fields", "n_indent", "prompt")
