"""What `make run` says before the server starts: where it will listen, and a line to try.

Run as ``python -m tools.greeting``; reads the same environment as the server, which itself tells what
is wrong with it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from app.core.errors import StartError
from app.core.parsing.addresses import is_tcp, split_host_port
from app.core.parsing.environment import PREFIX, names_without_prefix
from app.core.settings import DEMO_MODEL, Settings, load_settings

# What the demo model answers well, and what any model that generates answers.
DEMO_TRIAL = ("/complete", '{"prompt": "def __len__(self):\\n", "max_new_tokens": 32}')
TRIAL = ("", '{"data": "def add(a, b):"}')
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def main() -> int:
    """Print the greeting. Returns the exit code, which is always 0."""
    try:
        settings = load_settings()
    except StartError:
        return 0
    print("\n".join(lines(settings, os.environ)), flush=True)
    return 0


def lines(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The greeting, line by line."""
    ignored = [
        f"{name}={environ[name]} is not read: write {PREFIX}{name}={environ[name]}"
        for name in names_without_prefix(environ, Settings.model_fields)
    ]
    key = " -H 'Authorization: Bearer '$KEY" if settings.api_keys else ""
    path, body = DEMO_TRIAL if settings.model == str(DEMO_MODEL) else TRIAL
    return [
        *ignored,
        f"Forklift is starting on {where(settings)}. When /readyz says ready, try:",
        f"  curl -X POST {target(settings)}{path}{key} -H 'Content-Type: application/json' -d '{body}'",
        *([f"or open {target(settings)}/ in a browser."] if is_tcp(settings.addresses[0]) else []),
    ]


def where(settings: Settings) -> str:
    """The address for a sentence."""
    first = settings.addresses[0]
    return f"port {split_host_port(first)[1]} ({settings.bind})" if is_tcp(first) else first


def target(settings: Settings) -> str:
    """The first address as curl takes it."""
    first, scheme = settings.addresses[0], "https" if settings.has_tls else "http"
    if not is_tcp(first):
        return f"--unix-socket {first.removeprefix('unix:')} {scheme}://localhost{settings.path_prefix}"
    host, port = split_host_port(first)
    host = LOOPBACK.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}{settings.path_prefix}"


if __name__ == "__main__":
    sys.exit(main())
