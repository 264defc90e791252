"""One replica: what a Gunicorn worker is, in a process of Ray Serve's. Knows the engine and the application, not Ray.

Made on the replica's event loop, which goes on while the model loads on the inference thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from app.cluster.bridge.wsgi_bridge import WsgiBridge
from app.cluster.replica_health import ReplicaHealth
from app.cluster.scale_plan import merged_environment, require_keys
from app.core.logs.logging import configure_logging
from app.core.settings import load_settings
from app.engine.thread.inference import make_inference
from app.http.application.factory import create_app
from app.models.folder.early import check_models
from app.serve.context import set_current
from app.serve.processes.startup import start_single

LOOK_S = 0.1


class Replica:
    """``instance`` is its name in answers; ``args`` are the deployment's settings."""

    def __init__(self, instance: str, args: Mapping[str, str], keys: str | None):
        self.instance = instance
        self.settings = load_settings(merged_environment(args, os.environ))
        require_keys(self.settings, keys)
        configure_logging(self.settings.log_format, log_prompts=self.settings.log_prompts)
        check_models(self.settings)
        self.context = start_single(self.settings, make_inference)
        set_current(self.context)
        self._health = ReplicaHealth(self.context)
        self.app = create_app(self.context)

    async def wait_until_ready(self) -> None:
        """Until the models which stay are loaded. Raises ``ModelLoadError`` or ``DefectError``."""
        while self.context.board.rows()[0].state != "ready":
            self.check_health()
            await asyncio.sleep(LOOK_S)

    def check_health(self) -> None:
        """Raise ``DefectError`` where this replica is to be replaced."""
        self._health.check()

    def num_places_taken(self) -> int:
        """Sequences that run or wait."""
        row = self.context.board.rows()[0]
        return row.num_running + row.num_waiting

    def bridge(self) -> WsgiBridge:
        """The application for a server that speaks ASGI, on one event loop."""
        headers = [(b"x-instance", self.instance.encode())]
        return WsgiBridge(self.app, self.settings, self.context.metrics, headers)
