"""The application of one worker behind the bridge and uvicorn, as in a replica of Ray Serve; its argument is a port."""

from __future__ import annotations

import sys

import uvicorn

from app.cluster.bridge.wsgi_bridge import WsgiBridge
from app.core.logs.logging import configure_logging
from app.core.settings import load_settings
from app.engine.thread.inference import make_inference
from app.http.application.factory import create_app
from app.serve.context import set_current
from app.serve.processes.startup import start_single


def main() -> None:
    settings = load_settings()
    configure_logging(settings.log_format)
    context = start_single(settings, make_inference)
    set_current(context)
    bridge = WsgiBridge(create_app(context), settings, context.metrics)
    uvicorn.run(bridge, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
