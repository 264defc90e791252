"""The WSGI entry point: ``gunicorn wsgi:app``; run as a program, the development server.

The application is made when a worker first asks for it, so that importing this module costs
nothing and needs no worker.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from app.core.errors import SettingsError, StartError
from app.core.logs.logging import configure_logging
from app.core.parsing.addresses import is_tcp, split_host_port
from app.core.settings import load_settings
from app.core.system.extras import require_extra
from app.http.application.factory import create_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.core.settings import Settings
    from app.serve.context import WorkerContext

START_FAILED = 3


def __getattr__(name: str) -> Callable[..., Any]:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.serve import hooks
    from app.serve.processes import checked_application as checking

    globals()["app"] = application = checking.check() if hooks.is_only_checking() else create_app()
    return application


def main() -> int:
    """One process, one slot, threads for HTTP; for development only. Returns the exit code."""
    try:
        serve()
    except StartError as error:
        print(f"forklift: {error}", file=sys.stderr)
        return START_FAILED
    return 0


def serve() -> None:
    """Load and serve until interrupted. Raises ``StartError``."""
    from app.engine.thread.inference import make_inference
    from app.models.folder.early import check_models
    from app.serve.connections.listening import check_addresses
    from app.serve.context import set_current
    from app.serve.processes.startup import start_single
    from app.serve.processes.terminal import leave_terminal

    settings = load_settings()
    configure_logging(settings.log_format, log_prompts=settings.log_prompts)
    host, port = address(settings)
    check_models(settings)
    if settings.registry:
        from app.serve.registry.announcing import check_registry

        check_registry(settings)
    check_addresses([(host, port)])
    if settings.grpc_bind:
        require_extra("grpc", "GRPC_BIND")
        check_addresses([split_host_port(settings.grpc_bind)], "GRPC_BIND")
    leave_terminal()
    context = start_single(settings, make_inference)
    set_current(context)
    open_rpc(context)
    stop_announcing = announce(context, (host, port))
    threading.Thread(target=exit_on_load_failure, args=(context,), daemon=True).start()
    # The reloader would start a second process with a second model.
    try:
        create_app(context).run(host, port, threaded=True, use_reloader=False, ssl_context=key_pair(settings))
    finally:
        stop_announcing()


def open_rpc(context: WorkerContext) -> None:
    """Take gRPC calls, where there is a port for them."""
    if context.settings.grpc_bind:
        from app.rpc.door import open_door

        context.door = open_door(context)


def announce(context: WorkerContext, address: tuple[str, int]) -> Callable[[], None]:
    """Tell the registry, where there is one; what is returned takes that back."""
    if not context.settings.registry:
        return lambda: None
    from app.serve.registry.announcing import begin
    from app.serve.registry.registration import Registration

    context.registration = Registration()
    return begin(context, context.registration, [address]).stop


def address(settings: Settings) -> tuple[str, int]:
    """Host and port. Raises ``SettingsError``: Gunicorn takes sockets and several addresses, Werkzeug does not."""
    addresses = settings.addresses
    if len(addresses) > 1 or not is_tcp(addresses[0]):
        raise SettingsError(f"FORKLIFT_BIND: the development server listens on one host:port, not on {settings.bind}")
    return split_host_port(addresses[0])


def key_pair(settings: Settings) -> tuple[str, str] | None:
    """Certificate and key as Werkzeug takes them."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return settings.tls_cert, settings.tls_key


def exit_on_load_failure(context: WorkerContext) -> None:
    """End the process where the model cannot be loaded; the server itself runs on the main thread."""
    while (failure := context.inference.load_failure()) is None:
        time.sleep(0.2)
    print(f"forklift: {failure}", file=sys.stderr, flush=True)
    os._exit(START_FAILED)


if __name__ == "__main__":
    sys.exit(main())
