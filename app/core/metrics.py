"""What is counted of requests and of loads, for Prometheus; any thread may read.

HTTP threads write once per request, the inference thread once per load and unload.

Knows neither Flask nor processes. Where ``PROMETHEUS_MULTIPROC_DIR`` names a folder (the master makes
a fresh one), the numbers lie there in one file per kind and worker slot. A new worker goes on with the
file of its slot, so that the sums stay right when a worker is killed and the files do not pile up.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from app.core.work.jobs import BaseJob, Timings, TokenCounts

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Requests that match no route share one label: paths are the caller's choice and without number.
NO_ROUTE = "none"
_REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_LOAD_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
_TOKEN_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 5)


class Metrics:
    """The counters and histograms of one worker; all durations are in seconds.

    ``identity`` names this process among those that share the folder; it may change, and what is
    counted from then on belongs to the new name.
    """

    def __init__(self, identity: Callable[[], str] = lambda: str(os.getpid())):
        self._is_shared = bool(os.environ.get(FOLDER))
        # prometheus_client's documented way to count by something else than process ids.
        values.ValueClass = (
            values.MultiProcessValue(process_identifier=identity)  # type: ignore[no-untyped-call]
            if self._is_shared
            else values.MutexValue
        )
        self._registry = CollectorRegistry()
        self._make_counters()
        self._make_histograms()

    def _make_counters(self) -> None:
        self._requests = self._counter("requests", "Requests answered, by route and status.", "route", "status")
        self._errors = self._counter("request_errors", "Requests refused or failed, by error code.", "reason")
        self._prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of requests that ended.")
        self._cached_tokens = self._counter("cached_prompt_tokens", "Prompt tokens found in the prefix cache.")
        self._generated_tokens = self._counter("generation_tokens", "Tokens generated, of requests that ended.")
        self._loads = self._counter("model_loads", "Loads of models, by how they ended.", "model", "outcome")
        self._engines = self._counter("engine_loads", "Loads that worked, by the engine.", "model", "engine")
        self._dropped = self._counter("dropped_steps", "Steps that failed the check at a load.", "model", "step")
        self._compiled = self._counter("compiled_steps", "Packages that were made, failed, used.", "model", "outcome")
        self._graphs = self._counter(
            "decode_graphs", "Decoding steps recorded, failed, wrong, dropped.", "model", "outcome"
        )
        self._unsound = self._counter("unsound_logits", "Requests failed by NaN or infinity in their logits.", "model")
        self._unloads = self._counter("model_unloads", "Models taken out of memory, by why.", "model", "reason")
        self._passed_on = self._counter("rpc_calls_passed_on", "gRPC calls that another worker answers.")
        self._lost_lines = self._counter("log_lines_lost", "Log lines that nobody took in time.")

    def _make_histograms(self) -> None:
        self._queue = self._histogram("request_queue_time_seconds", "From admission to prefill.", _REQUEST_S)
        self._ttft = self._histogram("time_to_first_token_seconds", "From admission to the first token.", _REQUEST_S)
        self._inter_token = self._histogram(
            "inter_token_latency_seconds", "Mean time between two tokens, once per sequence.", _TOKEN_S
        )
        self._e2e = self._histogram("e2e_request_latency_seconds", "Generating requests, whole.", _REQUEST_S)
        self._load = self._histogram("model_load_seconds", "Loads of models that worked, warm-up included.", _LOAD_S)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"forklift_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(f"forklift_{name}", text, registry=self._registry, buckets=bounds)

    def count_request(self, route: str | None, status: int, reason: str | None) -> None:
        """A request was answered; ``reason`` is the code of its error, also of one inside a stream."""
        self._requests.labels(route or NO_ROUTE, str(status)).inc()
        if reason is not None:
            self._errors.labels(reason).inc()

    def count_passed_on(self) -> None:
        """A gRPC call went to another worker, which has begun; that one counts the request."""
        self._passed_on.inc()

    def observe_generation(
        self, timings: Timings, counts: TokenCounts, jobs: Sequence[BaseJob], total_s: float
    ) -> None:
        """A generating request ended, well or not; points in time that it never reached are left out."""
        self._prompt_tokens.inc(counts.prompt_tokens)
        self._cached_tokens.inc(counts.cached_tokens)
        self._generated_tokens.inc(counts.completion_tokens)
        self._e2e.observe(total_s)
        if timings.started_s is not None:
            self._queue.observe(timings.started_s - timings.created_s)
        if timings.first_token_s is not None:
            self._ttft.observe(timings.first_token_s - timings.created_s)
        for job in jobs:
            self._observe_pace(job)

    def _observe_pace(self, job: BaseJob) -> None:
        """From the engine's own points in time: a client that reads slowly changes nothing."""
        first_s, last_s, num_gaps = job.timings.first_token_s, job.timings.finished_s, job.usage.completion_tokens - 1
        if first_s is not None and last_s is not None and num_gaps > 0:
            self._inter_token.observe((last_s - first_s) / num_gaps)

    @contextmanager
    def load_of(self, model: str) -> Iterator[None]:
        """Counts the load that the block is: ``loaded`` with its seconds, or ``failed`` where it raises."""
        started_s = time.monotonic()
        try:
            yield
        except BaseException:
            self._loads.labels(model, "failed").inc()
            raise
        self._loads.labels(model, "loaded").inc()
        self._load.observe(time.monotonic() - started_s)

    def count_refused_load(self, model: str) -> None:
        """A load was not tried, for lack of memory."""
        self._loads.labels(model, "refused").inc()

    def count_engine(self, model: str, engine: str, dropped: Sequence[str]) -> None:
        """A load ended with ``engine``, after the steps ``dropped`` had failed their check."""
        self._engines.labels(model, engine).inc()
        for step in dropped:
            self.count_dropped(model, step)

    def count_dropped(self, model: str, step: str) -> None:
        """``step`` failed its check."""
        self._dropped.labels(model, step).inc()

    def count_compiled_step(self, model: str, outcome: Literal["made", "failed", "used"]) -> None:
        """A package was made, could not be made, or is used from now on."""
        self._compiled.labels(model, outcome).inc()

    def count_decode_graph(self, model: str, outcome: str) -> None:
        """A shape of decoding steps was ``recorded``, could not be (``failed``), differed from the steps themselves
        (``wrong``), or what was recorded was ``dropped``, since memory had moved."""
        self._graphs.labels(model, outcome).inc()

    def count_unsound_logits(self, model: str) -> None:
        """A request was failed, since the model gave no numbers for it."""
        self._unsound.labels(model).inc()

    def count_unload(self, model: str, reason: str) -> None:
        """``idle``: for long enough; ``room``: another model needs the memory."""
        self._unloads.labels(model, reason).inc()

    def count_lost_log_lines(self, num_lines: int) -> None:
        """Lines of the log were dropped, since nobody reads it."""
        self._lost_lines.inc(num_lines)

    def source(self) -> Collector:
        """What to scrape: this process's numbers, or the sums over all workers."""
        return MultiProcessCollector(None) if self._is_shared else self._registry  # type: ignore[no-untyped-call]
