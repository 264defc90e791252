"""Body of ``/infill``: texts with holes between them, in three forms."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.http.schemas.common import GenerationOptions
from app.http.schemas.strict import StrictBody

MAX_HOLES = 32
MAX_FILES = 64


class ExtraFile(StrictBody):
    """Another file, for context."""

    filename: str = Field(description="Its name.")
    text: str = Field(description="Its content.")


class InfillBody(GenerationOptions):
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

    @model_validator(mode="after")
    def _one_form(self) -> InfillBody:
        forms = [form for form in FORMS if any(getattr(self, name) is not None for name in form)]
        if not forms:
            raise InvalidParameterError("prefix: is missing; send prefix and suffix, or parts", param="prefix")
        if len(forms) > 1:
            name = next(name for name in forms[1] if getattr(self, name) is not None)
            raise InvalidParameterError(f"{name}: cannot be sent together with {forms[0][0]}", param=name)
        self._check_choices()
        return self

    def _check_choices(self) -> None:
        if self.num_choices != 1:
            raise UnsupportedParameterError("n: infilling makes one choice", param="n")
        if self.num_logprobs is not None:
            raise UnsupportedParameterError("logprobs: infilling tells none", param="logprobs")
        if self.stream and len(self.texts) > 2:
            raise UnsupportedParameterError("stream: only a single hole can be streamed", param="stream")

    @property
    def texts(self) -> list[str]:
        """The parts, whichever form they came in."""
        if self.parts is not None:
            return self.parts
        return [self.prefix or self.input_prefix or "", self.suffix or self.input_suffix or ""]

    @property
    def files(self) -> list[tuple[str, str]]:
        """Name and text of the other files."""
        return [(file.filename, file.text) for file in self.input_extra or []]

    @property
    def prompt_param(self) -> str:
        form = next(form for form in FORMS if any(getattr(self, name) is not None for name in form))
        return form[0]


FORMS = (("prefix", "suffix"), ("parts",), ("input_prefix", "input_suffix"))
