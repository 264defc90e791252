"""What the client gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds since the server took the request in."""

    queue_ms: float
    ttft_ms: float
    total_ms: float


@dataclass(frozen=True)
class Token:
    """A token, its log-probability, and the best tokens in its place."""

    id: int
    token: str
    logprob: float
    bytes: bytes
    top: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of several completions."""

    text: str
    finish_reason: str
    logprobs: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Completion:
    """A whole answer. ``choices`` holds every completion where ``n`` is above 1 (not in streams);
    ``history`` the rounds of a chat; ``infills`` what fills each hole, where ``text`` is everything
    (of a stream: what fills the hole)."""

    text: str
    finish_reason: str
    usage: Usage
    timings: Timings
    model: str
    request_id: str
    recordid: str | int | None = None
    logprobs: tuple[Token, ...] = ()
    choices: tuple[Choice, ...] = ()
    infills: tuple[str, ...] = ()
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What came in a stream for the completion of this index; the last one has no text but ``answer``."""

    text: str
    index: int = 0
    logprobs: tuple[Token, ...] = ()
    answer: Completion | None = None


@dataclass(frozen=True)
class ToolCall:
    """A call that the model makes; ``arguments`` is JSON as text, whole unless the answer was cut."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """An answer of a conversation whose parts are told apart. ``spoken()`` is what goes back to the server with the
    tools' results: ``{"role": "tool", "tool_call_id": call.id, "content": ...}``."""

    content: str
    reasoning: str
    calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Usage
    model: str

    def spoken(self) -> dict[str, Any]:
        """The answer as a message of the conversation; its reasoning stays behind."""
        calls = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in self.calls
        ]
        more = {"tool_calls": calls} if calls else {}
        return {"role": "assistant", "content": self.content, **more}


@dataclass(frozen=True)
class MessagePiece:
    """What came in a stream: text, reasoning, or arguments of the last of ``calls``; the last piece has none of these
    but ``answer``. A call is there with its name before its arguments come."""

    content: str = ""
    reasoning: str = ""
    arguments: str = ""
    calls: tuple[ToolCall, ...] = ()
    answer: Message | None = None


@dataclass(frozen=True)
class Tokens:
    """A text cut into tokens, and how many the model's context holds."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    max_context: int


@dataclass(frozen=True)
class Proposal:
    """A token for a mask."""

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True)
class LabelScore:
    """A label and how well it fits."""

    label: str
    score: float


@dataclass(frozen=True)
class RankedDocument:
    """A document by its place in the request, and how well it fits the query."""

    index: int
    score: float


@dataclass(frozen=True)
class Entity:
    """What is named in a text, from the character ``start`` to ``end``; None where the server cannot tell."""

    kind: str
    score: float
    word: str
    start: int | None
    end: int | None


@dataclass(frozen=True)
class FoundAnswer:
    """The characters of a context that answer a question."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Embeddings:
    """A vector for each input."""

    vectors: list[list[float]]
    model: str
    prompt_tokens: int
