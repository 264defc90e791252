"""The real ``gunicorn.conf.py`` with the real engine, whose workers can be told to stop inside the board's lock."""

import os
from pathlib import Path

exec(compile(Path("gunicorn.conf.py").read_text(), "gunicorn.conf.py", "exec"))
_post_fork = post_fork  # noqa: F821


def post_fork(server, worker):
    from tests.chaos import stopping

    stopping.obey(Path(os.environ["STOP_FILE"]))
    _post_fork(server, worker)
