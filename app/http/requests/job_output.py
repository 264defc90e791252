"""What a job of a request has brought so far. HTTP threads; pure state."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.core.errors import RequestError
from app.core.work.job_events import Event, Failed, Finished, FinishReason, PromptScored, TextDelta, TokenLogprob
from app.core.work.jobs import BaseJob


@dataclass(frozen=True, slots=True)
class Piece:
    """What came together for the job of this index; ``finish_reason`` where that ended it."""

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces that were there together. ``is_last`` once every job has ended well; ``error`` if one did not."""

    pieces: list[Piece]
    is_last: bool
    error: RequestError | None = None


@dataclass(slots=True)
class JobOutput:
    """What one job has brought so far."""

    job: BaseJob
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    error: RequestError | None = None
    is_cut: bool = False
    stop: str | None = None
    _texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def reason(self) -> FinishReason:
        """Why a job that ended well did."""
        assert self.finish_reason is not None, "the job has not ended"
        return self.finish_reason

    @property
    def has_ended(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    def as_piece(self, index: int) -> Piece:
        """Everything so far as if it had come at once."""
        return Piece(index, self.text, tuple(self.logprobs), self.finish_reason)

    def read(self, index: int, events: list[Event]) -> Piece:
        """Take ``events`` in, and sum them up."""
        text = ""
        logprobs: list[TokenLogprob] = []
        for event in events:
            match event:
                case TextDelta():
                    text += event.text
                    logprobs += event.logprobs
                case PromptScored():
                    self.prompt_logprobs = event.logprobs
                case Finished():
                    self.finish_reason, self.is_cut, self.stop = event.finish_reason, event.is_cut, event.stop
                case Failed():
                    self.error = event.error
        self._texts.append(text)
        self.logprobs += logprobs
        return Piece(index, text, tuple(logprobs), self.finish_reason)
