"""The real ``gunicorn.conf.py`` with the stand-in for the inference thread."""

import os
from pathlib import Path

exec(compile(Path("gunicorn.conf.py").read_text(), "gunicorn.conf.py", "exec"))

if "DOUBLE_WORKER_CLASS" in os.environ:
    worker_class = os.environ["DOUBLE_WORKER_CLASS"]


def post_fork(server, worker):
    from tests.service.double import InferenceDouble

    hooks.post_fork(server, worker, InferenceDouble)  # noqa: F821
