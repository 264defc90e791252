"""Gunicorn's configuration of a server whose models all run through ``generate``: what to compare with."""

import runpy as _runpy
from pathlib import Path as _Path
from typing import Any as _Any

_usual = _runpy.run_path(str(_Path(__file__).resolve().parents[1] / "gunicorn.conf.py"))
globals().update({name: value for name, value in _usual.items() if not name.startswith("__")})


def post_fork(server: _Any, worker: _Any) -> None:
    from app.engine.checks import steps

    steps.TEXT_STEPS = steps.TEXT_STEPS[-1:]
    _usual["post_fork"](server, worker)
