"""The items of an answer and the events of each, from the blocks of the answer. HTTP threads; pure state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from app.http.answers.openai_types import ScoredMessageToken
from app.http.dialects.answer_blocks import Block, BlockStep
from app.http.dialects.named_events import NamedEvent
from app.http.dialects.responses.response_types import ItemStatus, OutputItem, OutputTextPart, ReasoningTextPart

ID_PREFIXES = {"text": "msg", "call": "fc", "reasoning": "rs"}
TEXT_EVENTS = {"text": "response.output_text", "reasoning": "response.reasoning_text"}


class OutputItems:
    """Those of one answer. Scored tokens belong to the text that comes with them, or next."""

    def __init__(self, request_id: str):
        self._request_id = request_id
        self._unplaced: list[ScoredMessageToken] = []
        self._scores: dict[int, list[ScoredMessageToken]] = defaultdict(list)

    def score(self, tokens: list[ScoredMessageToken]) -> None:
        """Tokens that came, before the text that came with them."""
        self._unplaced += tokens

    def told(self, block: Block, *, is_cut: bool) -> OutputItem:
        """The item as it is at its end."""
        return self._item(block, "incomplete" if is_cut else "completed")

    def events(self, step: BlockStep, *, is_cut: bool) -> Iterable[NamedEvent]:
        """What a step of its block is told by; ``is_cut``: the answer ends within it."""
        match step.does:
            case "begin":
                yield from self._begun(step.block)
            case "grow":
                yield self._grown(step)
            case "end":
                yield from self._ended(step.block, is_cut=is_cut)

    def _begun(self, block: Block) -> Iterator[NamedEvent]:
        item = self._item(block, "in_progress")
        yield {"type": "response.output_item.added", "output_index": block.index, "item": item}
        if block.kind != "call":
            part = self._part(block, is_empty=True)
            yield {"type": "response.content_part.added", **self._place_of(block), "part": part}

    def _grown(self, step: BlockStep) -> NamedEvent:
        block = step.block
        if block.kind == "call":
            place = {"item_id": self._id(block), "output_index": block.index}
            return {"type": "response.function_call_arguments.delta", **place, "delta": step.text}
        event = {"type": f"{TEXT_EVENTS[block.kind]}.delta", **self._place_of(block), "delta": step.text}
        return {**event, "logprobs": self._place(block)} if block.kind == "text" else event

    def _ended(self, block: Block, *, is_cut: bool) -> Iterator[NamedEvent]:
        if block.kind == "text":
            self._place(block)
        item = self.told(block, is_cut=is_cut)
        if block.kind == "call":
            told = {"item_id": self._id(block), "output_index": block.index, "name": block.name}
            yield {"type": "response.function_call_arguments.done", **told, "arguments": block.text}
        else:
            event = {"type": f"{TEXT_EVENTS[block.kind]}.done", **self._place_of(block), "text": block.text}
            yield {**event, "logprobs": self._scores[block.index]} if block.kind == "text" else event
            yield {"type": "response.content_part.done", **self._place_of(block), "part": self._part(block)}
        yield {"type": "response.output_item.done", "output_index": block.index, "item": item}

    def _place(self, block: Block) -> list[ScoredMessageToken]:
        """The tokens that now belong to this text."""
        placed, self._unplaced = self._unplaced, []
        self._scores[block.index] += placed
        return placed

    def _item(self, block: Block, status: ItemStatus) -> OutputItem:
        is_empty, item_id = status == "in_progress", self._id(block)
        match block.kind:
            case "call":
                return {
                    "id": item_id,
                    "type": "function_call",
                    "status": status,
                    "call_id": block.call_id,
                    "name": block.name,
                    "arguments": "" if is_empty else block.text,
                }
            case "reasoning":
                thought: list[ReasoningTextPart] = [] if is_empty else [_thought(block.text)]
                return {"id": item_id, "type": "reasoning", "status": status, "summary": [], "content": thought}
            case "text":
                said = [] if is_empty else [self._said(block, block.text)]
                return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": said}

    def _part(self, block: Block, *, is_empty: bool = False) -> OutputTextPart | ReasoningTextPart:
        text = "" if is_empty else block.text
        return _thought(text) if block.kind == "reasoning" else self._said(block, text)

    def _said(self, block: Block, text: str) -> OutputTextPart:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self._scores[block.index])}

    def _place_of(self, block: Block) -> dict[str, Any]:
        return {"item_id": self._id(block), "output_index": block.index, "content_index": 0}

    def _id(self, block: Block) -> str:
        return f"{ID_PREFIXES[block.kind]}_{self._request_id}_{block.index}"


def _thought(text: str) -> ReasoningTextPart:
    return {"type": "reasoning_text", "text": text}
