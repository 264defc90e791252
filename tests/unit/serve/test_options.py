"""Options of Gunicorn that would break the server stop its start with one line."""

from __future__ import annotations

import pytest
from gunicorn.config import Config

from app.core.errors import SettingsError
from app.core.settings import load_settings
from app.serve.processes.gunicorn_options import OUR_WORKER, check_options

SETTINGS = load_settings({})


def configured(**options: object) -> Config:
    cfg = Config()
    for name, value in {"worker_class": OUR_WORKER, "threads": SETTINGS.num_http_threads, **options}.items():
        cfg.set(name, value)
    return cfg


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"preload_app": True}, "--preload"),
        ({"reload": True}, "--reload"),
        ({"max_requests": 20}, "--max-requests"),
        ({"max_requests_jitter": 5}, "--max-requests"),
        ({"worker_class": "gevent"}, "--worker-class gevent"),
        ({"worker_class": "asgi"}, "--worker-class asgi"),
        ({"threads": 2}, "--threads 2"),
        ({"workers": 0}, "--workers 0"),
        ({"timeout": 1}, "--timeout 1"),
        ({"certfile": "/x.pem", "keyfile": "/y.pem"}, "FORKLIFT_TLS_CERT"),
        ({"protocol": "uwsgi"}, "--protocol uwsgi"),
    ],
)
def test_an_option_that_breaks_the_server_is_refused_by_name(options, named):
    with pytest.raises(SettingsError, match=r"gunicorn's option .* is not possible here") as raised:
        check_options(configured(**options), SETTINGS)
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"worker_class": "sync", "threads": 1},
        {"worker_class": "gthread", "threads": 4},
        {"timeout": 0},
        {"workers": 3},
        {"worker_connections": 20},
        {"threads": 500},
    ],
)
def test_other_options_are_left_to_gunicorn(options):
    check_options(configured(**options), SETTINGS)


def test_the_configuration_file_itself_is_taken_by_gunicorn(monkeypatch):
    """Each of its values is of the type that Gunicorn asks for."""
    from app.serve.processes import preparation
    from tests.docs.source import REPOSITORY

    monkeypatch.setattr(preparation, "_plan", None)
    monkeypatch.setattr(preparation, "configure_logging", lambda _format, **_options: None)
    values = {"__name__": "config"}
    exec(compile((REPOSITORY / "gunicorn.conf.py").read_text(), "gunicorn.conf.py", "exec"), values)
    cfg = Config()
    for name in set(values) & set(cfg.settings):
        cfg.set(name, values[name])
    assert cfg.forwarder_headers in ([], [""])
    check_options(cfg, SETTINGS)
