"""Answers as text-generation-inference writes them: a text with its tokens, or an event for each token. HTTP threads.

A stop string that ends a text is part of it there; a stream ends without ``[DONE]``, its last token bringing the text.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from app.core.errors import RequestError
from app.core.work.job_events import TokenLogprob
from app.http.answers.logprobs import LEAST_LOGPROB, token_text
from app.http.answers.stream import EventWriter, event
from app.http.dialects.tgi.tgi_body import TgiOptions
from app.http.dialects.tgi.tgi_types import (
    TgiDetails,
    TgiEvent,
    TgiFinishReason,
    TgiPromptToken,
    TgiText,
    TgiToken,
)
from app.http.reading.strict_json import dump
from app.http.requests.job_output import JobOutput, Piece
from app.http.requests.running import RunningRequest
from app.serve.incoming.error_forms import tgi_error

if TYPE_CHECKING:
    from app.models.tokens.vocabulary import Vocabulary


class TokenWriter:
    """Tokens as they are told, one after the other: the texts of all but special ones make up the text."""

    def __init__(self, vocabulary: Vocabulary):
        self.text = ""
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, scored: TokenLogprob) -> TgiToken:
        """The next token."""
        if self._vocabulary.is_special(scored.token):
            return self.alone(scored.token, scored.logprob)
        text = self._decoder.decode(self._vocabulary.text_bytes(scored.token))
        self.text += text
        return {**self.alone(scored.token, scored.logprob), "text": text}

    def alone(self, token: int, logprob: float) -> TgiToken:
        """A token by itself."""
        is_special = self._vocabulary.is_special(token)
        told = max(logprob, LEAST_LOGPROB)
        return {"id": token, "text": token_text(self._vocabulary, token), "logprob": told, "special": is_special}

    def best(self, scored: TokenLogprob) -> list[TgiToken]:
        """The best tokens in its place."""
        return [self.alone(token, logprob) for token, logprob in scored.top]


class TgiShape:
    """``is_listed``: the answer is a list, as on ``/``."""

    def __init__(self, options: TgiOptions, *, is_listed: bool = False):
        self.prefix = options.inputs if options.told.return_full_text else ""
        self._told = options.told
        self._seed = options.seed
        self._is_listed = is_listed
        self._writer: TokenWriter | None = None
        self._num_out = 0
        self._held: TgiEvent | None = None

    def whole(self, generation: RunningRequest) -> list[TgiText] | TgiText:
        output = generation.outputs[0]
        writer = TokenWriter(generation.vocabulary)
        tokens = [writer.push(scored) for scored in output.logprobs]
        answer: TgiText = {"generated_text": self._text(output, writer)}
        if self._told.details:
            details: TgiDetails = {
                "finish_reason": finish_reason(output),
                "generated_tokens": output.job.usage.completion_tokens,
                "seed": self._seed,
                "prefill": prefill(output, generation.vocabulary) if self._told.decoder_input_details else [],
                "tokens": tokens,
            }
            if self._told.top_n_tokens:
                details["top_tokens"] = [writer.best(scored) for scored in output.logprobs]
            answer["details"] = details
        return [answer] if self._is_listed else answer

    def first(self, generation: RunningRequest) -> Iterable[object]:
        return []

    def piece(self, piece: Piece, generation: RunningRequest) -> Iterable[object]:
        """An event for each token but the newest: which is the last is known when nothing comes behind it."""
        told = []
        for scored in piece.logprobs:
            if self._held is not None:
                told.append(self._held)
            self._held = self._event(scored, generation)
        return told

    def last(self, generation: RunningRequest) -> Iterable[object]:
        assert self._held is not None, "a text that ended well has a token"
        assert self._writer is not None
        output = generation.outputs[0]
        counts = output.job.usage
        return [
            {
                **self._held,
                "generated_text": self._text(output, self._writer),
                "details": {
                    "finish_reason": finish_reason(output),
                    "generated_tokens": counts.completion_tokens,
                    "seed": self._seed,
                    "input_length": counts.prompt_tokens,
                }
                if self._told.details
                else None,
            }
        ]

    def _event(self, scored: TokenLogprob, generation: RunningRequest) -> TgiEvent:
        if self._writer is None:
            self._writer = TokenWriter(generation.vocabulary)
        self._num_out += 1
        told: TgiEvent = {
            "index": self._num_out,
            "token": self._writer.push(scored),
            "generated_text": None,
            "details": None,
        }
        return {**told, "top_tokens": self._writer.best(scored)} if self._told.top_n_tokens else told

    def _text(self, output: JobOutput, writer: TokenWriter) -> str:
        """The text, with the stop string that ended it."""
        text = output.text
        behind = writer.text[len(text) :] if output.is_cut else ""
        stops = [stop for stop in self._told.stop or [] if behind.startswith(stop)]
        return self.prefix + text + max(stops, key=len, default="")


def finish_reason(output: JobOutput) -> TgiFinishReason:
    """Why a text ended, in text-generation-inference's words."""
    if output.reason == "length":
        return "length"
    return "stop_sequence" if output.is_cut else "eos_token"


def prefill(output: JobOutput, vocabulary: Vocabulary) -> list[TgiPromptToken]:
    """The prompt's tokens."""
    ids = output.job.prompt_ids
    scores: list[float | None] = [None, *(max(one.logprob, LEAST_LOGPROB) for one in output.prompt_logprobs)]
    pairs = zip(ids, scores, strict=True)
    return [{"id": token, "text": token_text(vocabulary, token), "logprob": score} for token, score in pairs]


class TgiWriter(EventWriter):
    """Events without an end mark; failures in text-generation-inference's form."""

    def __init__(self, shape: Any):
        super().__init__(shape)
        self._answers = shape

    def last(self, generation: RunningRequest) -> bytes:
        return b"".join(event(dump(value)) for value in self._answers.last(generation))

    def error(self, error: RequestError, request_id: str) -> bytes:
        return event(dump(tgi_error(error, request_id, error.status)))
