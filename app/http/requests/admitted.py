"""A request's ticket on the board and its lease of a model, taken before any work. HTTP threads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.errors import InternalError
from app.core.patience import overdue
from app.core.work.adapters import Adapter
from app.core.work.jobs import BaseJob
from app.core.work.sampling_params import Constraint, Grammar
from app.http.requests.caller import CLIENT_CHECK_S, Caller, ClientGoneError
from app.http.requests.limits import Deadlines
from app.serve.board.admission import RequestTicket

if TYPE_CHECKING:
    from app.engine.checks.features import Model
    from app.engine.loading.handle import ModelHandle, ModelLease
    from app.models.encoders.encoder_model import EncoderModel
    from app.models.encoders.seq2seq_model import Seq2SeqModel
    from app.models.text_model import TextModel


@dataclass(frozen=True, slots=True)
class Need:
    """What a request asks for: places, the field that says how many, and the caller's own part of the cache."""

    num_sequences: int = 1
    param: str = "n"
    cache_salt: str | None = None


NEED_ONE = Need()


class AdmittedRequest:
    """A ticket, and the lease of a loaded model: given back together, once, from any thread.

    Jobs of one ``owner`` share what was computed.
    """

    def __init__(
        self,
        caller: Caller,
        ticket: RequestTicket,
        handle: ModelHandle,
        deadlines: Deadlines,
        owner: bytes,
    ):
        self.caller = caller
        self.handle = handle
        self.deadlines = deadlines
        self._owner = owner
        self._ticket = ticket
        self._lease: ModelLease | None = None
        self._model: Model | None = None
        self._adapter: Adapter | None = None
        self._asked_s = time.monotonic()
        self._has_waited = False

    @property
    def model(self) -> Model:
        assert self._model is not None, "a request is admitted with its model"
        return self._model

    @property
    def text_model(self) -> TextModel:
        """The model of a request that was admitted to generate."""
        model = self.model
        assert model.task == "generate", "the task is checked when a request is admitted"
        return model

    @property
    def seq2seq_model(self) -> Seq2SeqModel:
        """The model of a request that was admitted to make texts from texts."""
        model = self.model
        assert model.task == "seq2seq", "the task is checked when a request is admitted"
        return model

    @property
    def encoder(self) -> EncoderModel:
        """The model of a request that was admitted to an encoder."""
        model = self.model
        assert model.task != "generate" and model.task != "seq2seq", "the task is checked when a request is admitted"
        return model

    @property
    def is_lost(self) -> bool:
        """Whether this worker is given up: its inference thread will not end the request."""
        return self._ticket.is_lost

    def wait_for_model(self) -> None:
        """Have the model loaded if it is not. Raises a ``RequestError``, also when the caller leaves or it takes too
        long."""
        self._lease = self.handle.lease()
        while (model := self._lease.wait(CLIENT_CHECK_S if self._has_waited else 0.0)) is None:
            self._has_waited = True
            self._require_patience()
        self._model, self._adapter = model, self.handle.adapter_of(model)

    def compiled(self, constraint: Constraint) -> Grammar:
        """What a completion is to match, ready to be followed. Raises a ``RequestError``, also when the caller leaves
        or it takes too long."""
        return self.text_model.constraints.compiled(constraint, self.caller.scope, self._require_patience)

    def submit(self, job: BaseJob) -> None:
        """Queue ``job`` for the model; the jobs of a request take turns with those of others as one."""
        job.owner, job.turn = self._owner, self
        if (adapter := self._adapter) is not None:
            job.adapter, job.owner = adapter, self._owner + adapter.name.key
        assert self._lease is not None, "a request is admitted with its model"
        if self._has_waited:
            job.timings.created_s = self._asked_s
        self._lease.submit(job)

    def start(self) -> None:
        """A sequence of the request leaves the queue."""
        self._ticket.start()

    def keep(self, num_sequences: int) -> None:
        """The places of all but ``num_sequences`` are free again."""
        self._ticket.keep(num_sequences)

    def release(self) -> None:
        """Give both back; harmless when repeated."""
        self._ticket.release()
        if self._lease is not None:
            self._lease.release()

    def _require_patience(self) -> None:
        if self.caller.is_gone():
            raise ClientGoneError()
        if self.is_lost:
            raise InternalError()
        if (error := overdue(time.monotonic(), self.deadlines.total_s, self.deadlines.queue_s)) is not None:
            raise error
