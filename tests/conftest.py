"""Fixtures for every suite, made once per run: small models of the real architectures, a server with the demo model."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import structlog
from werkzeug.routing import Rule

if TYPE_CHECKING:
    from tests.e2e.conftest import Forklift

# Tiny models gain nothing from a second thread, and OpenMP's waiting threads lose much on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nothing is compiled by the way: COMPILE=auto finds no compiler, in this process and in servers. Tests that are about
# compiling bring one along.
NO_COMPILER = "no-compiler-in-tests"
os.environ["CXX"] = NO_COMPILER

# Code whose logging nobody has set up, as in most unit tests: structlog's own traceback takes seconds for a deep one.
structlog.configure(
    processors=[
        structlog.stdlib.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Programs under test inherit it: whoever started this run in the background (`&`, `nohup`) had SIGINT ignored, and a
# program leaves an ignored one alone.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Times say nothing on a machine that runs several servers beside the tests.
TOO_SLOW = hypothesis.HealthCheck.too_slow
hypothesis.settings.register_profile("forklift", deadline=None, suppress_health_check=[TOO_SLOW])
hypothesis.settings.load_profile("forklift")


def remember_url_builders() -> None:
    """Werkzeug compiles two functions per rule, for ``url_for``: of an application made anew for a test nearly all of
    the time. They depend on nothing but the rule, so that applications with the same rules share them."""
    compile_builder, made = Rule._compile_builder, {}

    def builder(self: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        if self.defaults:
            return compile_builder(self, append_unknown)
        key = (self.rule, tuple(self._trace), append_unknown)
        if key not in made:
            made[key] = compile_builder(self, append_unknown)
        return made[key]

    Rule._compile_builder = builder


remember_url_builders()


def pytest_addoption(parser: pytest.Parser) -> None:
    """What ``tests/anywhere`` asks, where that is a server which runs already."""
    parser.addoption("--url", help="ask this server, as http://host:port, which generates text")
    parser.addoption("--look", action="append", help="where one of several processes behind it answers /readyz")
    parser.addoption("--key", help="its API key")
    parser.addoption("--ca", help="file of the authority of its certificate")


def pytest_collectstart() -> None:
    """Little that is made while tests are collected is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What is there by now stays to the end; a collection, as unloading a model asks for, need not walk through it."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """A command run by a test may block or catch SIGINT for its process, and programs of the next test inherit it; it
    may also set logging up."""
    handler, mask = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    logging = structlog.get_config()
    yield
    structlog.configure(**logging)
    signal.signal(signal.SIGINT, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


ModelFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """``model_folder("qwen2")`` is a loadable folder with a small random model of that family."""
    from tests.tiny_models import save_tiny_model

    root = tmp_path_factory.mktemp("models")

    def make(family: str) -> Path:
        folder = root / family
        return folder if folder.exists() else save_tiny_model(family, folder)

    return make


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forklift]:
    """One worker with the embedded demo model, for tests that leave no trace in it."""
    from tests.e2e.conftest import Forklift
    from tests.service.conftest import server_starter

    starter = server_starter(tmp_path_factory.mktemp("demo"), Forklift)
    yield next(starter)()
    next(starter, None)
