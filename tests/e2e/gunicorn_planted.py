"""The real configuration with the real engine, in which the fault that PLANTED names is planted before the load."""

import os
from pathlib import Path

exec(compile(Path("gunicorn.conf.py").read_text(), "gunicorn.conf.py", "exec"))


def post_fork(server, worker):
    from app.engine.thread.inference import make_inference

    def make(settings, slot, on_state, metrics):
        planted = []

        def watched(state, progress):
            on_state(state, progress)
            if not planted:
                # On the inference thread, before it loads: torch is not imported on the worker's main one.
                from tests.planted import PLANTED

                planted.append(PLANTED[os.environ["PLANTED"]](setattr))

        return make_inference(settings, slot, watched, metrics)

    hooks.post_fork(server, worker, make)  # noqa: F821
