"""Bodies of ``/complete`` and ``/chat``."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from app.core.errors import InvalidParameterError
from app.http.schemas.generation_options import GenerationOptions
from app.http.schemas.strict import StrictBody, require_one

if TYPE_CHECKING:
    from app.models.text_model import Message


class CompleteBody(GenerationOptions):
    """Text to be continued."""

    prompt: str | None = Field(None, description="The text to continue. Either prompt or data is needed.")
    data: str | None = Field(None, description="Another name for prompt.")
    echo: bool | None = Field(None, description="Put the prompt in front of the completion. Default: false.")

    @model_validator(mode="after")
    def _one_prompt(self) -> CompleteBody:
        require_one(self, "prompt", "data")
        return self

    @property
    def text(self) -> str:
        """The prompt under whichever name it came."""
        return (self.data if self.prompt is None else self.prompt) or ""

    @property
    def prompt_param(self) -> str:
        return "data" if self.prompt is None else "prompt"


class ChatMessage(StrictBody):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks.")
    content: str = Field(description="What is said.")


Round = Annotated[list[str], Field(min_length=2, max_length=2)]


class ChatBody(GenerationOptions):
    """A conversation to be answered: a prompt with its history, or a list of messages."""

    prompt: str | None = Field(None, description="The question. Either prompt or messages is needed.")
    history: Annotated[list[Round], Field(fail_fast=True)] | None = Field(
        None, description="Earlier rounds, each [question, answer]; with prompt only."
    )
    system: str | None = Field(
        None, description="System message; with prompt only. An empty one overrides the server's default."
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)] | None = Field(
        None, description="The conversation; a system message may come first, the last message is the user's."
    )
    max_length: int | None = Field(
        None, ge=1, description="Tokens of prompt and completion together; instead of max_new_tokens."
    )

    @model_validator(mode="after")
    def _one_form(self) -> ChatBody:
        require_one(self, "prompt", "messages")
        if self.messages is not None:
            self._check_messages(self.messages)
        if self.max_length is not None and self.max_new_tokens is not None:
            raise InvalidParameterError("max_length: cannot be sent together with max_new_tokens", param="max_length")
        return self

    def _check_messages(self, messages: list[ChatMessage]) -> None:
        for name in ("history", "system"):
            if getattr(self, name) is not None:
                raise InvalidParameterError(f"{name}: cannot be sent together with messages", param=name)
        if messages[-1].role != "user":
            raise InvalidParameterError("messages: the last one must have the role user", param="messages")
        if any(message.role == "system" for message in messages[1:]):
            raise InvalidParameterError("messages: only the first one may have the role system", param="messages")

    @property
    def total_tokens(self) -> int | None:
        return self.max_length

    @property
    def prompt_param(self) -> str:
        return "messages" if self.prompt is None else "prompt"

    def conversation(self, default_system: str | None) -> list[Message]:
        """Messages for the chat template, with the server's system message where there is none."""
        turns = self._turns()
        has_own = turns[0]["role"] == "system"
        system = self.system if self.system is not None else default_system
        return turns if has_own or not system else [{"role": "system", "content": system}, *turns]

    def rounds(self, response: str) -> list[list[str]]:
        """The history after this answer: [question, answer] pairs."""
        turns = [*self._turns(), {"role": "assistant", "content": response}]
        return [
            [q["content"], a["content"]] for q, a in pairwise(turns) if (q["role"], a["role"]) == ("user", "assistant")
        ]

    def _turns(self) -> list[Message]:
        if self.messages is not None:
            return [{"role": message.role, "content": message.content} for message in self.messages]
        turns = []
        for question, answer in self.history or []:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return [*turns, {"role": "user", "content": self.prompt or ""}]
