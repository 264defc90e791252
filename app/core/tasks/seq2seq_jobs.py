"""Jobs for encoder-decoder models: a text that another one is made of. Knows neither Flask nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Unpack

from app.core.work.jobs import Job, JobOptions
from app.core.work.sampling_params import SamplingParams

# Of the sources that are read together, with their padding; a single one may be longer.
MAX_SOURCE_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a text is decoded; texts whose decoding is equal are made together.

    ``changes``: what differs from the checkpoint's own settings, under the names of ``GenerationConfig``.
    ``num_beams``: texts that are searched at once, of which the best is kept. ``most_tokens``: the bound of the answer
    where what is decoded depends on it (beams, a forced end); None where it only ends there.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    num_beams: int = 1
    most_tokens: int | None = None


class Seq2SeqJob(Job):
    """One text to be made of the tokens ``prompt_ids`` of another.

    ``params`` hold what is decided token by token. With beams nothing is: there they only bound and end the text.
    """

    def __init__(
        self,
        request_id: str,
        prompt_ids: list[int],
        params: SamplingParams,
        decoding: Decoding,
        *,
        is_streamed: bool = True,
        **options: Unpack[JobOptions],
    ):
        super().__init__(request_id, prompt_ids, params, is_streamed=is_streamed, **options)
        self.decoding = decoding
