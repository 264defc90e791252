"""The real ``gunicorn.conf.py`` with the real engine, in which tests can order faults."""

from pathlib import Path

exec(compile(Path("gunicorn.conf.py").read_text(), "gunicorn.conf.py", "exec"))


def post_fork(server, worker):
    from app.engine.thread.inference import make_inference
    from tests.e2e.faults import Faults

    hooks.post_fork(server, worker, Faults().make(make_inference))  # noqa: F821
