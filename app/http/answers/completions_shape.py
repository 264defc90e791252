"""What the answers of ``/v1/completions`` look like, and what they share with chat. HTTP threads."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import ClassVar

from app.http.answers.logprobs import legacy_block, place_prompt
from app.http.answers.native_shapes import Tracks
from app.http.answers.openai_types import (
    Envelope,
    FimChoice,
    FimCompletion,
    FimMessage,
    LegacyLogprobs,
    TextChoice,
    TextCompletion,
)
from app.http.requests.job_output import JobOutput, Piece
from app.http.requests.running import RunningRequest
from app.http.schemas.completions_body import CompletionsBody
from app.http.schemas.openai_fields import OpenAIOptions


class OpenAIShape:
    """The envelope of an answer and of a chunk."""

    prefix = ""
    id_prefix: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, options: OpenAIOptions):
        self._options = options
        self._created_s = int(time.time())
        self._tracks = Tracks(options)

    def first(self, generation: RunningRequest) -> Iterable[object]:
        return []

    def last(self, generation: RunningRequest) -> Iterable[object]:
        if not self._options.has_usage_chunk:
            return []
        usage = {"usage": generation.usage()}
        return [{**self._envelope(generation), "object": self.chunk_object, "choices": [], **usage}]

    def _chunk(self, generation: RunningRequest, choice: object) -> dict[str, object]:
        chunk = {**self._envelope(generation), "object": self.chunk_object, "choices": [choice]}
        if self._options.has_usage_throughout:
            return {**chunk, "usage": generation.usage()}
        return {**chunk, "usage": None} if self._options.has_usage_chunk else chunk

    def _envelope(self, generation: RunningRequest) -> Envelope:
        return {
            "id": f"{self.id_prefix}-{generation.request_id}",
            "created": self._created_s,
            "model": generation.model,
            "system_fingerprint": None,
        }


class CompletionsShape(OpenAIShape):
    """``text_completion``; choices of one prompt stand together, prompt by prompt."""

    id_prefix = "cmpl"
    chunk_object = "text_completion"

    def __init__(self, body: CompletionsBody):
        super().__init__(body)
        self._body = body
        self._echoed: set[int] = set()

    def whole(self, generation: RunningRequest) -> TextCompletion:
        kept = [generation.outputs[index].as_piece(index) for index in self._kept(generation)]
        choices = [self._whole_choice(index, piece, generation) for index, piece in enumerate(kept)]
        usage = generation.usage()
        return {**self._envelope(generation), "object": "text_completion", "choices": choices, "usage": usage}

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        prefix = self._echo(piece.index, generation)
        text, scores = prefix + piece.text, self._logprobs(piece, prefix, generation)
        if not (text or scores or piece.finish_reason):
            return []
        choice = {"text": text, "index": piece.index, "logprobs": scores, "finish_reason": piece.finish_reason}
        return [self._chunk(generation, choice)]

    def _whole_choice(self, index: int, piece: Piece, generation: RunningRequest) -> TextChoice:
        prefix = self._echo(piece.index, generation)
        scores = self._logprobs(piece, prefix, generation, is_whole=True)
        reason = generation.outputs[piece.index].reason
        return {"text": prefix + piece.text, "index": index, "logprobs": scores, "finish_reason": reason}

    def _echo(self, index: int, generation: RunningRequest) -> str:
        """The prompt, in front of what comes first."""
        if not self._body.echo or index in self._echoed:
            return ""
        prompt = self._body.prompts[index // self._body.num_choices]
        return prompt if isinstance(prompt, str) else generation.vocabulary.text(prompt)

    def _logprobs(
        self, piece: Piece, prefix: str, generation: RunningRequest, *, is_whole: bool = False
    ) -> LegacyLogprobs | None:
        """The lists of a choice, empty ones where a stop left no token; None in a chunk without text."""
        is_first = piece.index not in self._echoed
        self._echoed.add(piece.index)
        if self._body.logprobs is None:
            return None
        placed = self._tracks.push(piece, generation, len(prefix))
        if self._body.echo and is_first:
            completion = generation.outputs[piece.index]
            ids = completion.job.prompt_ids
            placed = place_prompt(generation.vocabulary, ids, completion.prompt_logprobs, prefix) + placed
        return legacy_block(generation.vocabulary, placed) if placed or piece.text or is_whole else None

    def _kept(self, generation: RunningRequest) -> list[int]:
        """Indices of the completions that are returned: the best n of each prompt."""
        size, num_kept = self._body.num_choices, self._body.n or 1
        groups = [list(range(at, at + size)) for at in range(0, len(generation.outputs), size)]
        if self._body.is_ranked:
            for group in groups:
                group.sort(key=lambda index: mean_logprob(generation.outputs[index]), reverse=True)
        return [index for group in groups for index in group[:num_kept]]


class FimShape(OpenAIShape):
    """Mistral's answer to a hole: chat's envelope round the text."""

    id_prefix = "fim"
    chunk_object = "chat.completion.chunk"

    def whole(self, generation: RunningRequest) -> FimCompletion:
        choices: list[FimChoice] = []
        for index, one in enumerate(generation.outputs):
            message: FimMessage = {"role": "assistant", "content": one.text, "tool_calls": None, "prefix": False}
            choices.append({"index": index, "message": message, "finish_reason": one.reason})
        usage = generation.usage()
        return {**self._envelope(generation), "object": "chat.completion", "choices": choices, "usage": usage}

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        delta = {"role": "assistant", "content": piece.text}
        choice = {"index": piece.index, "delta": delta, "finish_reason": piece.finish_reason}
        return [self._chunk(generation, choice)] if piece.text or piece.finish_reason else []


def mean_logprob(completion: JobOutput) -> float:
    """Mean log-probability per token, by which ``best_of`` ranks."""
    scores = [one.logprob for one in completion.logprobs]
    return sum(scores) / len(scores) if scores else float("-inf")
