"""One job inside the engine: its tokens, its sampler, its text. Inference thread only."""

from __future__ import annotations

from app.core.jobs import FinishReason, Job
from app.engine.sampling import RowSampler
from app.engine.text import Detokenizer, TextFilter
from app.models.text_model import TextModel


class Sequence:
    """A job that has a row. ``num_cached`` tokens from the front have their entries in the KV cache."""

    def __init__(self, job: Job, model: TextModel):
        self.job = job
        self.tokens = list(job.prompt_ids)
        self.num_cached = 0
        self.sampler = RowSampler(job.params, job.prompt_ids, model.vocab_size, model.checkpoint.device)
        self._eos_ids = frozenset() if job.params.ignore_eos else model.eos_ids
        self._detokenizer = Detokenizer(model.decode, job.prompt_ids)
        self._filter = TextFilter(job.params.stop, job.params.truncate_before_pattern)

    @property
    def num_uncached(self) -> int:
        """Tokens that the model has not seen yet; 1 while decoding."""
        return len(self.tokens) - self.num_cached

    def accept(self, token: int) -> None:
        """Take the sampled ``token``: emit the text it completes, end the job where it must end."""
        self.job.count_token()
        if token in self._eos_ids:
            self._end("stop")
            return
        self.tokens.append(token)
        self.sampler.accept(token)
        text, is_stopped = self._filter.push(self._detokenizer.push(token))
        if is_stopped:
            self._emit(text)
            self.job.finish("stop")
        elif self.job.usage.completion_tokens >= self.job.params.max_new_tokens:
            self._emit(text)
            self._end("length")
        else:
            self._emit(text)

    def _end(self, reason: FinishReason) -> None:
        text, was_stopped = self._filter.push(self._detokenizer.flush())
        self._emit(text)
        if not was_stopped:
            text, was_stopped = self._filter.finish()
            self._emit(text)
        self.job.finish("stop" if was_stopped else reason)

    def _emit(self, text: str) -> None:
        if text:
            self.job.emit_text(text)
