"""What the master looks at before it listens: settings, slots, folders, and Gunicorn's own options.

What is wrong with them ends the start with one line. The plan is made once and outlives a reload (HUP executes the
configuration file anew). Master; imports no torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from app.core.errors import StartError
from app.core.logs.logging import configure_logging, get_logger
from app.core.parsing.addresses import split_host_port
from app.core.parsing.environment import PREFIX, SCRIPT_NAME, names_without_prefix
from app.core.settings import Settings, load_settings
from app.core.system.extras import require_extra
from app.core.versions import untested
from app.serve.connections import tls
from app.serve.connections.listening import check_addresses
from app.serve.processes.gpus import Labels, plan_slots
from app.serve.processes.gunicorn_options import check_options
from app.serve.processes.watch import STOP_THE_SERVER

log = get_logger("serve")


@dataclass(frozen=True)
class Plan:
    """What the master knows before it forks."""

    settings: Settings
    gpus: tuple[Labels, ...]


_plan: Plan | None = None
_is_checked = False


def prepare(
    environ: MutableMapping[str, str] | None = None, check_models: Callable[[Settings], None] | None = None
) -> Plan:
    """Settings and slots, made once; what is wrong with them ends the start with one line.

    ``check_models`` looks at the models' folders and raises ``StartError``. Takes SCRIPT_NAME out of
    ``environ``: Gunicorn would cut it off each path, and fail where it is not there.
    """
    global _plan
    if _plan is None:
        environ = os.environ if environ is None else environ
        with _ending_the_start():
            settings = load_settings(environ)
            _plan = Plan(settings, tuple(plan_slots(settings, environ)))
            _check_registry(settings)
            if settings.grpc_bind:
                require_extra("grpc", "GRPC_BIND")
            if check_models is not None:
                check_models(settings)
        environ.pop(SCRIPT_NAME, None)
        configure_logging(settings.log_format, log_prompts=settings.log_prompts)
        for name in names_without_prefix(environ, Settings.model_fields):
            log.warning("setting_without_prefix", name=name, advice=f"{PREFIX}{name} is what is read")
        name_untested()
    return _plan


def _check_registry(settings: Settings) -> None:
    """Imports what announces a server only where one is announced."""
    if settings.registry:
        from app.serve.registry.announcing import check_registry

        check_registry(settings)


def name_untested() -> None:
    """One warning for each library that is newer than what the tests ran with."""
    for one in untested():
        log.warning(
            "untested_version", package=one.name, version=one.version, newest_tested=one.newest, advice=one.advice
        )


def check_server(cfg: Any) -> None:
    """Look at Gunicorn's configuration, once: options that break the server, addresses that are taken."""
    global _is_checked
    if _plan is None or _is_checked:
        return
    _is_checked = True
    check_configuration(cfg)
    with _ending_the_start():
        check_addresses(cfg.address)
        if _plan.settings.grpc_bind:
            check_addresses([split_host_port(_plan.settings.grpc_bind)], "GRPC_BIND")


def check_configuration(cfg: Any) -> None:
    """Look at all but the addresses, which a server that runs already has."""
    if _plan is None:
        return
    with _ending_the_start():
        check_options(cfg, _plan.settings)
    if cfg.is_ssl:
        tls.make_context(cfg)


def is_prepared() -> bool:
    """Whether this process has a plan: the master, and what it forks."""
    return _plan is not None


@contextmanager
def _ending_the_start() -> Iterator[None]:
    """Turn a ``StartError`` into its line and the exit code that says so."""
    try:
        yield
    except StartError as error:
        refuse_start(error)


def refuse_start(error: StartError) -> NoReturn:
    """End the master with one line."""
    print(f"forklift: {error}", file=sys.stderr)
    sys.exit(STOP_THE_SERVER)
