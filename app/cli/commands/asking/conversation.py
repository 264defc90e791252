"""A conversation with a server: its rounds, and the parts of each answer as they come.

Where the model reasons, or tools are given, ``/v1/chat/completions`` tells the parts apart; else ``/chat`` answers with
the model's own settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from app.client import Client, Completion, Message, MessagePiece, ToolCall

Kind = Literal["text", "reasoning", "call", "note"]
# Fields of the native routes that OpenAI's have under another name.
RENAMED = {"max_new_tokens": "max_tokens"}


class Say(Protocol):
    """Gets each piece of an answer."""

    def __call__(self, text: str, kind: Kind = "text", /) -> None: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """What is told of a whole answer; ``calls`` wait for their results."""

    prompt_tokens: int
    completion_tokens: int
    first_ms: float
    total_ms: float
    finish_reason: str
    calls: tuple[ToolCall, ...] = ()


def answered(answer: Completion) -> Answered:
    """What is told of an answer of the native routes."""
    usage, timings = answer.usage, answer.timings
    counts = usage.prompt_tokens, usage.completion_tokens
    return Answered(*counts, timings.ttft_ms, timings.total_ms, answer.finish_reason)


@dataclass
class Talk:
    """How to ask: ``options`` go by the native routes' names; ``is_typed``: ctrl-C stops the answer."""

    client: Client
    say: Say
    options: dict[str, Any]
    system: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    is_typed: bool = False


class Conversation:
    """The rounds so far, and the next one. What the model can do is asked at the first."""

    def __init__(self, talk: Talk):
        self._talk = talk
        self._rounds: Rounds | Turns | None = None

    def forget(self) -> None:
        """Begin anew."""
        self._rounds = None

    def ask(self, prompt: str) -> Answered | None:
        """Stream the answer; None where it was interrupted, what had come is kept. Raises ``ClientError``."""
        if self._rounds is None:
            self._rounds = self._begin()
        return self._rounds.ask(prompt)

    def go_on(self, results: Sequence[tuple[ToolCall, str]]) -> Answered | None:
        """The same with results of calls."""
        assert isinstance(self._rounds, Turns), "only these make calls"
        return self._rounds.go_on(results)

    def _begin(self) -> Rounds | Turns:
        found = [one for one in self._talk.client.models() if one.get("task") == "generate"]
        name = self._talk.options.get("model")
        model = next((one for one in found if name in (None, one.get("id"))), {})
        if not self._talk.tools and not model.get("reasoning"):
            return Rounds(self._talk)
        defaults = model.get("defaults")
        return Turns(self._talk, defaults if isinstance(defaults, dict) else {})


class Rounds:
    """Questions and answers, on ``/chat``."""

    def __init__(self, talk: Talk):
        self.rounds: list[tuple[str, str]] = []
        self._talk = talk
        self._system = {} if talk.system is None else {"system": talk.system}

    def ask(self, prompt: str) -> Answered | None:
        """As ``Conversation.ask``."""
        texts: list[str] = []
        answer: Completion | None = None
        talk = self._talk
        pieces = talk.client.chat(prompt, stream=True, history=self.rounds, **self._system, **talk.options)
        with stoppable(pieces, talk):
            for piece in pieces:
                texts.append(piece.text)
                talk.say(piece.text)
                answer = piece.answer or answer
        talk.say("\n")
        self.rounds.append((prompt, "".join(texts)))
        return None if answer is None else answered(answer)


class Turns:
    """Messages whose parts are told apart. ``defaults`` are the model's own, which that route does not follow."""

    def __init__(self, talk: Talk, defaults: dict[str, Any]):
        self.messages: list[dict[str, Any]] = []
        self._talk = talk
        self._options = {RENAMED.get(name, name): value for name, value in {**defaults, **talk.options}.items()}
        if talk.tools:
            self._options["tools"] = talk.tools
        if talk.system is not None:
            self.messages.append({"role": "system", "content": talk.system})

    def ask(self, prompt: str) -> Answered | None:
        """As ``Conversation.ask``."""
        return self._answer({"role": "user", "content": prompt})

    def go_on(self, results: Sequence[tuple[ToolCall, str]]) -> Answered | None:
        """The same behind results of calls."""
        told = [{"role": "tool", "tool_call_id": call.id, "content": result} for call, result in results]
        return self._answer(*told)

    def _answer(self, *messages: dict[str, Any]) -> Answered | None:
        """The next answer; a question that fails is none of the conversation."""
        begun_s, first_s = time.monotonic(), None
        answer: Message | None = None
        texts: list[str] = []
        shown = Shown(self._talk.say)
        pieces = self._talk.client.converse([*self.messages, *messages], stream=True, **self._options)
        with stoppable(pieces, self._talk):
            for piece in pieces:
                first_s = time.monotonic() if first_s is None else first_s
                texts.append(piece.content)
                shown.take(piece)
                answer = piece.answer or answer
        self._talk.say("\n")
        self.messages += messages
        if answer is None:
            self.messages.append({"role": "assistant", "content": "".join(texts)})
            return None
        self.messages.append(answer.spoken())
        first_ms, total_ms = (((at or begun_s) - begun_s) * 1000 for at in (first_s, time.monotonic()))
        counts = answer.usage.prompt_tokens, answer.usage.completion_tokens
        return Answered(*counts, first_ms, total_ms, answer.finish_reason, answer.calls)


class Shown:
    """What was shown of an answer: parts of unlike kinds stand on lines of their own."""

    def __init__(self, say: Say):
        self._say = say
        self._kind: Kind | None = None
        self._num_calls = 0

    def take(self, piece: MessagePiece) -> None:
        """Show what it adds."""
        if piece.reasoning:
            self._show(piece.reasoning, "reasoning")
        if piece.content:
            self._show(piece.content, "text")
        for call in piece.calls[self._num_calls :]:
            self._num_calls += 1
            self._show(f"{call.name} ", "call", is_new=True)
        if piece.arguments:
            self._show(piece.arguments, "call")

    def _show(self, text: str, kind: Kind, *, is_new: bool = False) -> None:
        if self._kind is not None and (is_new or kind != self._kind):
            self._say("\n")
        self._kind = kind
        self._say(text, kind)


@contextmanager
def stoppable(pieces: Iterator[Any], talk: Talk) -> Iterator[None]:
    """Ends quietly at ctrl-C, where it was typed; the connection is closed, so that the server stops, too."""
    try:
        yield
    except KeyboardInterrupt:
        if not talk.is_typed:
            raise
        talk.say(" [stopped]", "note")
    finally:
        close: Callable[[], None] | None = getattr(pieces, "close", None)
        if close is not None:
            close()
