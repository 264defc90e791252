"""Clients of encoders on the real engine, and answers that are compared but for rounding."""

from __future__ import annotations

import pytest

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
