"""Which part of a growing text is an answer's content: stop strings look at nothing else. Inference thread; pure state.

The text is read as it will be by who parts the answer: what is reasoning, and what is a call, is the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from app.core.parsing.tool_calls.answer_reader import AnswerForm, AnswerReader
from app.core.work.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the text as it was written."""

    text: str
    is_content: bool


class AnswerGate:
    """Takes a text in pieces and gives it back, piece by piece, once it is certain what each is."""

    def __init__(self, form: AnswerForm):
        self._form = form
        self._reader = AnswerReader(form)
        self._held = ""
        self._num_out = 0
        # Whether the text stands within reasoning, or within a call.
        self.is_thinking = form.is_thinking
        self.is_inside = form.is_thinking or self._reader.scanner.is_inside

    @classmethod
    def of(cls, params: SamplingParams) -> AnswerGate | None:
        """None where an answer has no parts that matter to the engine."""
        form = params.answer
        if form is None or form.is_plain or not (params.stop or form.may_think):
            return None
        return cls(form)

    @property
    def can_think(self) -> bool:
        """Whether reasoning may still come: in most forms it stands in front of all else."""
        return self._form.thinks_between or not self._reader.scanner.has_left

    def push(self, text: str) -> list[Segment]:
        """The segments that are certain now."""
        self._reader.push(text)
        return self._released(text)

    def finish(self) -> list[Segment]:
        """The rest, at the end of the text."""
        self._reader.finish()
        released = self._released("")
        rest, self._held = self._held, ""
        return [*released, Segment(rest, is_content=False)] if rest else released

    def _released(self, text: str) -> list[Segment]:
        self._held += text
        scanner = self._reader.scanner
        if text:
            self.is_thinking, self.is_inside = scanner.is_thinking, scanner.is_inside
        return [Segment(text, is_content) for end, is_content in self._ends() if (text := self._taken(end))]

    def _ends(self) -> Iterator[tuple[int, bool]]:
        scanner = self._reader.scanner
        for start, end in scanner.content_spans():
            yield start, False
            yield end, True
        yield scanner.settled, False

    def _taken(self, end: int) -> str:
        length = max(end - self._num_out, 0)
        text, self._held = self._held[:length], self._held[length:]
        self._num_out += len(text)
        return text
