"""The real ``gunicorn.conf.py`` with the stepping stand-in for the engine; for ``wsgi:app``."""

from pathlib import Path

exec(compile(Path("gunicorn.conf.py").read_text(), "gunicorn.conf.py", "exec"))


def post_fork(server, worker):
    from tests.service.stepping import SteppingInference

    hooks.post_fork(server, worker, SteppingInference)  # noqa: F821
