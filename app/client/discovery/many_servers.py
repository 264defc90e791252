"""Asks whichever server is best, and another one where nothing of an answer came."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ..asking_again import own_pause_s
from ..client_errors import (
    ClientError,
    ModelNotFoundError,
    NoAnswerError,
    NoServerError,
    RequestError,
    StreamEndedError,
)
from ..connection.one_server import CallLimits
from .attempts.attempt import Attempt, AttemptAt, HeldAnswer, Way
from .rerouting import Attempts, judge
from .server_choice import ServerChoice
from .server_entry import ServerEntry
from .server_lists import ServerList
from .server_probes import ServerProbes

FIRST_LIST_LIMIT_S = 10.0
PREFIX_CHARS = 256
# Every other path is for a model that generates.
TASKS = {
    "/fill-mask": "fill-mask",
    "/classify": "classify",
    "/translate": "seq2seq",
    "/summarize": "seq2seq",
    "/rerank": "rerank",
    "/zero-shot": "zero-shot",
    "/entities": "entities",
    "/answer": "answer",
    "/v1/embeddings": "embeddings",
}
FOR_ALL = ("/tokenize", "/detokenize")

Affinity = Literal["none", "prefix"]


@dataclass
class _Call:
    """One call on its way."""

    path: str
    body: dict[str, Any] | None
    attempt_at: AttemptAt
    is_whole: bool
    affinity: str | None
    end_s: float
    attempts: Attempts = field(default_factory=Attempts)
    asked: set[str] = field(default_factory=set)
    error: ClientError | None = None
    advised_s: float | None = None

    @property
    def model(self) -> str | None:
        found = (self.body or {}).get("model")
        return found if isinstance(found, str) else None

    @property
    def task(self) -> str | None:
        return None if self.body is None or self.path in FOR_ALL else TASKS.get(self.path, "generate")

    def note_advice(self, pause_s: float | None) -> None:
        """The shortest pause that a server advised counts."""
        if pause_s is not None:
            self.advised_s = pause_s if self.advised_s is None else min(pause_s, self.advised_s)

    def next_round(self) -> None:
        """Those that refused may be asked again; what a call may cost stays counted."""
        self.asked.clear()
        self.attempts.num_refusals, self.advised_s = 0, None


class ManyServers:
    """The servers of a registry, asked in one ``way``."""

    def __init__(
        self,
        shown_url: str,
        servers: ServerList,
        way: Way,
        limits: CallLimits,
        zone: str | None = None,
        affinity: Affinity = "none",
    ):
        self.shown_url = shown_url
        # Calls that were made at another server after one did not answer: for those who measure.
        self.num_made_again = 0
        self._servers, self._limits, self._affinity = servers, limits, affinity
        self._way = way
        # Of those in the registry, how many cannot be asked this way.
        self._num_out_of_reach = 0
        self._choice, self._probes = ServerChoice(zone), ServerProbes(way.is_alive)
        servers.follow(self._take)

    @property
    def servers(self) -> tuple[ServerEntry, ...]:
        """Those that are known, once any are."""
        self._wait_for_servers(self._limits.timeout_s)
        return self._choice.entries

    def close(self) -> None:
        self._servers.close()
        self._way.close()

    def post(self, path: str, body: dict[str, Any] | None, is_whole: bool = False) -> HeldAnswer:
        end_s = time.monotonic() + self._limits.timeout_s
        affinity = affinity_of(body) if self._affinity == "prefix" else None
        call = _Call(path, body, self._way.attempts(path, body), is_whole, affinity, end_s)
        for attempt in range(self._limits.max_retries + 1):
            if (answer := self._round(call)) is not None:
                return answer
            if not _may_change(call.error):
                break
            pause_s = own_pause_s(attempt) if call.advised_s is None else call.advised_s
            waited_s = self._limits.timeout_s - (end_s - time.monotonic())
            if attempt == self._limits.max_retries or not self._limits.allow(pause_s, waited_s):
                break
            time.sleep(pause_s)
            call.next_round()
        assert call.error is not None
        raise call.error

    def _round(self, call: _Call) -> HeldAnswer | None:
        """Ask one server after the other; None where all that fit were asked in vain. Raises ``ClientError``."""
        self._wait_for_servers(call.end_s - time.monotonic())
        while call.error is None or time.monotonic() < call.end_s:
            entry = self._choice.pick(call.model, call.task, call.asked, call.affinity)
            if entry is None:
                break
            self.num_made_again += call.error is not None
            call.asked.add(entry.id)
            if (answer := self._ask(entry, call)) is not None:
                return answer
        call.error = call.error or NoServerError(self._nobody(call))
        return None

    def _wait_for_servers(self, left_s: float) -> None:
        """Until the first list is there. One of servers that are all out of reach is one."""
        if not self._num_out_of_reach:
            self._choice.wait_for_servers(max(0.0, min(FIRST_LIST_LIMIT_S, left_s)))

    def _ask(self, entry: ServerEntry, call: _Call) -> HeldAnswer | None:
        """One attempt. None where another server may be asked; raises ``ClientError`` where not."""
        attempt = call.attempt_at(entry, max(0.001, call.end_s - time.monotonic()))
        forget = self._probes.watch(entry, attempt)
        try:
            answer = attempt.answer(call.is_whole)
        except ClientError as error:
            forget()
            self._note_failure(error, entry, call, attempt)
            return None
        except BaseException:
            forget()
            self._choice.done(entry)
            attempt.close()
            raise
        self._await_end(answer, call.is_whole, partial(self._note_end, entry, attempt, forget))
        return answer

    def _await_end(self, answer: HeldAnswer, is_whole: bool, note_end: Callable[[], None]) -> None:
        """Until it ends a stream is load, and may be cut."""
        if is_whole:
            note_end()
        else:
            answer.on_close = note_end

    def _note_end(self, entry: ServerEntry, attempt: Attempt, forget: Callable[[], None]) -> None:
        forget()
        self._choice.done(entry, attempt.told_load, attempt.was_cut)

    def _note_failure(self, error: ClientError, entry: ServerEntry, call: _Call, attempt: Attempt) -> None:
        """Returns where the call may go on, at another server or after a pause; raises ``error`` where not."""
        verdict = judge(error, call.attempts, was_connected=attempt.has_reached)
        self._choice.done(entry, attempt.told_load, verdict.has_failed)
        call.note_advice(attempt.advised_s)
        if isinstance(error, ModelNotFoundError) and call.model is not None:
            self._choice.note_lacking(entry, call.model)
        call.error = error
        if verdict.may_go_on:
            return
        if not _is_refusal(error):
            raise error
        call.asked.update(one.id for one in self._choice.entries)

    def _take(self, entries: tuple[ServerEntry, ...]) -> None:
        reached = tuple(entry for entry in entries if self._way.can_reach(entry))
        self._num_out_of_reach = len(entries) - len(reached)
        self._probes.doubt({e.id for e in self._choice.entries} - {e.id for e in reached if e.state != "failed"})
        self._choice.take(reached)
        self._way.keep(self._choice.entries)

    def _nobody(self, call: _Call) -> str:
        if not self._choice.entries and self._num_out_of_reach:
            return f"none of the {self._num_out_of_reach} servers in {self.shown_url} has {self._way.ports}"
        if not self._choice.entries:
            state = "holds no server" if self._servers.is_connected else "does not answer"
            return f"no server is known: {self.shown_url} {state}"
        wanted = f"the model {call.model!r}" if call.model is not None else f"a model for {call.task}"
        return f"none of the {len(self._choice.entries)} servers in {self.shown_url} has {wanted}"


def affinity_of(body: dict[str, Any] | None) -> str | None:
    """What requests that share their beginning have in common: the first characters of what a model reads."""
    for name in ("messages", "system", "prompt", "parts", "text", "input"):
        if (found := (body or {}).get(name)) is not None:
            first = found[0] if isinstance(found, list | tuple) and found else found
            return f"{(body or {}).get('model')}\0{json.dumps(first, default=str)[:PREFIX_CHARS]}"
    return None


def _may_change(error: ClientError | None) -> bool:
    """Whether a pause could make a difference."""
    is_refusal = error is not None and _is_refusal(error)
    return is_refusal or isinstance(error, NoAnswerError | StreamEndedError)


def _is_refusal(error: ClientError) -> bool:
    """Whether asking again after a pause may help, though no further server is asked now."""
    return isinstance(error, RequestError) and error.status in (429, 503) and error.code != "insufficient_memory"
