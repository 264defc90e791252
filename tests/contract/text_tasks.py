"""Clients of encoders on the real engine, and answers that are compared but for rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.http.application.factory import create_app
from tests.contract.loopback import serving
from tests.contract.real import RealWorld

EXACT = 1e-5


@pytest.fixture(scope="module")
def serve(model_folder):
    """One client for each model, made when it is first asked for."""
    worlds = {}

    def client(name):
        if name not in worlds:
            worlds[name] = RealWorld(model_folder(name), model_name=f"tiny-{name}", max_queue=40)
        return worlds[name].client()

    yield client
    for world in worlds.values():
        world.stop()


def answer_of(response):
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()


def assert_near(found, expected):
    """Equal but for rounding: the same shape and words, numbers within 1e-5."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name in expected:
            assert_near(found[name], expected[name])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=EXACT)
    else:
        assert found == expected


@contextmanager
def text_server(model_folder: Callable[[str], Path], folder: Path) -> Iterator[str]:
    """The address of a server with a model for each task of texts."""
    tasks = ("classify", "rerank", "zero-shot", "entities", "answer")
    tables = [f'["{task}"]\npath = "{model_folder(f"bert-{task}")}"\n' for task in tasks]
    tables.append(f'["texts"]\npath = "{model_folder("t5")}"\n')
    (folder / "models.toml").write_text("\n".join(tables))
    world = RealWorld(models=folder / "models.toml")
    with serving(create_app(world.context)) as url:
        yield url
    world.stop()
