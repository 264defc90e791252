"""``GET /metrics`` for Prometheus: all workers' numbers, from whichever worker is asked. HTTP threads."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Response
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from app.http.application.restful import Route
from app.serve.board.board_metrics import BoardCollector
from app.serve.context import WorkerContext


class MetricsPage(Route):
    """The text format that every version of Prometheus reads."""

    def get(self) -> Response:
        registry = CollectorRegistry(support_collectors_without_names=True)
        registry.register(_Everything(self.service.context))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Everything:
    """What the workers count and what their board says, as one collector."""

    def __init__(self, context: WorkerContext):
        self._context = context

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._context.metrics.source().collect()
        yield from BoardCollector(self._context.board, self._context.registration).collect()
