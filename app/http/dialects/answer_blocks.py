"""The blocks of an answer as it grows: reasoning, text, calls, one after another. HTTP threads; pure state.

What Anthropic's API calls content blocks and OpenAI's Responses output items: each begins, grows and ends before the
next one does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from app.core.parsing.tool_calls.answer_parts import Arguments, CallStart, Content, Part, Reasoning
from app.core.parsing.tool_calls.answer_reader import AnswerForm, AnswerReader
from app.http.answers.chat_parts import merged

BlockKind = Literal["reasoning", "text", "call"]


@dataclass(slots=True)
class Block:
    """One block, the ``index``th; ``name`` and ``call_id`` are a call's."""

    index: int
    kind: BlockKind
    name: str = ""
    call_id: str = ""
    _texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it holds so far; of a call the arguments: JSON as text."""
        return "".join(self._texts)

    def grow(self, text: str) -> None:
        self._texts.append(text)


@dataclass(frozen=True, slots=True)
class BlockStep:
    """A block begins, grows by ``text``, or ends."""

    does: Literal["begin", "grow", "end"]
    block: Block
    text: str = ""


class BlockReader:
    """Reads one completion, in pieces or whole."""

    def __init__(self, form: AnswerForm):
        self.blocks: list[Block] = []
        self._form = form
        self._reader = AnswerReader(form)

    @property
    def has_calls(self) -> bool:
        return any(block.kind == "call" for block in self.blocks)

    def push(self, text: str, *, is_last: bool) -> list[BlockStep]:
        """What is certain now; with ``is_last`` the rest, the end of the last block included."""
        steps = [step for part in merged(self._parts(text, is_last)) for step in self._take(part)]
        if is_last and self.blocks:
            steps.append(BlockStep("end", self.blocks[-1]))
        return steps

    def blank(self) -> list[BlockStep]:
        """An empty text, for answers that must have something."""
        begun = self._begin("text")
        return [*begun, BlockStep("end", self.blocks[-1])]

    def _parts(self, text: str, is_last: bool) -> list[Part]:
        if self._form.is_plain:
            return [Content(text)] if text else []
        parts = self._reader.push(text)
        return parts + self._reader.finish() if is_last else parts

    def _take(self, part: Part) -> list[BlockStep]:
        match part:
            case CallStart():
                return self._begin("call", part.name, self._form.id_of(part))
            case Arguments():
                return self._grow("call", part.text)
            case Content():
                return self._grow("text", part.text)
            case Reasoning():
                return self._grow("reasoning", part.text)

    def _grow(self, kind: BlockKind, text: str) -> list[BlockStep]:
        is_open = bool(self.blocks) and self.blocks[-1].kind == kind
        steps = [] if is_open else self._begin(kind)
        self.blocks[-1].grow(text)
        return [*steps, BlockStep("grow", self.blocks[-1], text)]

    def _begin(self, kind: BlockKind, name: str = "", call_id: str = "") -> list[BlockStep]:
        ended = [BlockStep("end", self.blocks[-1])] if self.blocks else []
        self.blocks.append(Block(len(self.blocks), kind, name, call_id))
        return [*ended, BlockStep("begin", self.blocks[-1])]
