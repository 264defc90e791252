"""Gunicorn's logger without handlers of its own: its records go where ours go. Every process.

The first thing of ours that Gunicorn makes with its final configuration, before it listens or loads
anything; so this is where the master looks at that configuration.
"""

from __future__ import annotations

from typing import Any

from gunicorn.glogging import Logger

from app.serve.processes import preparation


class PropagatingLogger(Logger):  # type: ignore[misc]  # gunicorn has no type information
    """Leaves format and destination to ``app.core.logs.logging``."""

    def setup(self, cfg: Any) -> None:
        preparation.check_server(cfg)
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True
