"""Why a package is not used is said in one line; one that cannot be loaded is no fault of the server."""

from __future__ import annotations

import pytest

from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.compiled import package_facts as facts
from app.models.compiled.compiled_step import Code, RowsCode, codes_of, find_step, gains, store_of
from app.models.compiled.package_facts import facts_of, key_of
from app.models.compiled.steps.step_graph import parts_of
from app.models.weights.fused.fused_layers import fuse_layers
from tests.compiled_files import fake_files


@pytest.fixture(scope="module")
def checkpoint(model_folder):
    loaded = load_checkpoint(load_settings({"FORKLIFT_MODEL": str(model_folder("llama"))}), lambda _: None)
    fuse_layers(loaded)
    return loaded


@pytest.fixture
def settings(tmp_path):
    return load_settings({"FORKLIFT_MODEL": "unused", "FORKLIFT_CACHE_DIR": str(tmp_path / "cache")})


def keep(checkpoint, settings, folder, **about):
    made_for = facts_of(parts_of(checkpoint).shape)
    told = {"facts": made_for, "steps_ms": {"1": (10.0, 5.0)}, **about}
    return store_of(settings).add(key_of(made_for), fake_files(folder / "files"), told)


def test_without_a_package_the_line_says_how_to_make_one(checkpoint, settings):
    reason = find_step(checkpoint, settings)
    assert "there is no package" in reason
    assert "forklift compile" in reason


@pytest.mark.parametrize(
    ("name", "words"), [("torch", "version of torch"), ("code", "version of Forklift"), ("processor", "processor")]
)
def test_a_package_made_elsewhere_is_named_with_what_differs(checkpoint, settings, tmp_path, monkeypatch, name, words):
    usual = facts.facts_of
    with monkeypatch.context() as other:
        for module in ("app.models.compiled.compiled_step", __name__):
            other.setattr(f"{module}.facts_of", lambda shape: {**usual(shape), name: "another"})
        keep(checkpoint, settings, tmp_path)
    reason = find_step(checkpoint, settings)
    assert f"made for another {words}" in reason


def test_files_that_are_no_code_are_a_reason_and_no_crash(checkpoint, settings, tmp_path):
    keep(checkpoint, settings, tmp_path)
    assert "cannot be loaded" in find_step(checkpoint, settings)


def test_a_package_under_the_name_of_another_is_not_used(checkpoint, settings, tmp_path):
    keep(checkpoint, settings, tmp_path, facts={"shape": "of another model"})
    assert "is not what its name says" in find_step(checkpoint, settings)


@pytest.mark.parametrize(
    ("steps_ms", "is_used"),
    [
        ({"1": (10.0, 9.4)}, True),
        ({"1": (10.0, 9.6)}, False),
        ({"1": (10.0, 12.0), "4": (10.0, 9.8)}, False),
        ({"1": (10.0, 12.0), "4": (10.0, 5.0)}, True),
    ],
    ids=str,
)
def test_a_package_that_saves_less_than_a_twentieth_is_not_used(checkpoint, settings, tmp_path, steps_ms, is_used):
    keep(checkpoint, settings, tmp_path, steps_ms=steps_ms)
    assert ("saves too little" in find_step(checkpoint, settings)) is not is_used


def test_a_package_is_used_for_those_numbers_of_rows_that_gain():
    about = {"steps_ms": {"1": (10.0, 5.0), "2": (10.0, 9.8), "3": (10.0, 11.0), "4": (10.0, 7.0)}}
    assert gains(about) == [1, 4]
    loaded: list[int] = []

    def load(num_rows: int) -> RowsCode:
        loaded.append(num_rows)
        return RowsCode(num_rows, Code, Code)

    assert {number: code.num_rows for number, code in codes_of([1, 4], load).items()} == {1: 1, 4: 4}
    assert {number: code.num_rows for number, code in codes_of([2, 3], load).items()} == {2: 4, 3: 4, 4: 4}
    assert loaded == [1, 4, 4]


@pytest.mark.parametrize(
    "told",
    [
        *(None, "5", {}, {"1": 5}, {"1": (1.0, float("nan"))}, {"1": (1.0, 0.0)}, {"x": (2.0, 1.0)}),
        *({"0": (2.0, 1.0)}, {"9": (2.0, 1.0)}, {"1": (float("inf"), 1.0)}, {"1": (3.0, 2.0, 1.0)}),
    ],
    ids=str,
)
def test_a_package_that_does_not_say_what_it_saves_is_not_used(checkpoint, settings, tmp_path, told):
    keep(checkpoint, settings, tmp_path, steps_ms=told)
    assert "does not say what it saves" in find_step(checkpoint, settings)


def test_a_damaged_package_is_not_run(checkpoint, settings, tmp_path):
    package = keep(checkpoint, settings, tmp_path)
    (package.path / "layers-1.so").write_bytes(b"half")
    assert "is not as it was made" in find_step(checkpoint, settings)


def test_a_package_that_others_can_write_to_is_not_run(checkpoint, settings, tmp_path):
    package = keep(checkpoint, settings, tmp_path)
    package.path.chmod(0o777)
    assert "can be written to by other users" in find_step(checkpoint, settings)
