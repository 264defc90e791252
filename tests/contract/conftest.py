"""Fixtures: the HTTP room on a scripted inference thread, with TESTING on and off."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.http.application.factory import create_app
from tests.conftest import ModelFolder
from tests.contract.doubles import World
from tests.contract.running import Reference, RunningServer, forward_pass, start
from tests.waiting import wait_until

PING_INTERVAL_S = 0.05


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Worlds that are stopped after the test, each with every place given back."""
    worlds: list[World] = []

    def make(*args: object, **kwargs: object) -> World:
        worlds.append(World(*args, **kwargs))
        return worlds[-1]

    yield make
    for world in worlds:
        world.inference.stop()
        wait_until(lambda world=world: world.num_places() == 0)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture(params=[False, True], ids=["production", "TESTING"])
def app(request: pytest.FixtureRequest, world: World) -> Flask:
    app = create_app(world.context, ping_interval_s=PING_INTERVAL_S)
    app.testing = request.param
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def client_of(world: World, **options: float) -> FlaskClient:
    """A client where the test needs settings of its own."""
    return create_app(world.context, **options).test_client()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, model_folder: ModelFolder) -> Iterator[RunningServer]:
    """One worker of ``gunicorn wsgi:app`` with a tiny model, for tests that leave no trace in it."""
    yield from start(tmp_path_factory.mktemp("running"), model_folder("qwen2"))


@pytest.fixture(scope="module")
def reference(model_folder: ModelFolder) -> Reference:
    """Log-probabilities of a plain forward pass of the same model."""
    return forward_pass(model_folder("qwen2"))
