"""``forklift cache`` lists what is kept and removes it; ``forklift compile`` fails with one line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.models.compiled.package_store import Store
from tests.compiled_files import fake_files


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FORKLIFT_CACHE_DIR", str(tmp_path / "cache"))
    store = Store(tmp_path / "cache", 10**6)
    store.add("abc-def", fake_files(tmp_path / "files"), {"model": "tiny", "eager_ms": 3.5, "compiled_ms": 2.0})
    return store


@pytest.fixture
def in_process(monkeypatch):
    """What the command sets for its process would stay with this one."""
    monkeypatch.setattr("app.cli.commands.compile.prepare_process", lambda _: None)


def told(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["cache", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_packages_are_listed_with_what_they_save(cache):
    [row] = json.loads(told("--json"))
    assert (row["package"], row["model"], row["eager_ms"], row["compiled_ms"], row["loads"]) == (
        "abc-def",
        "tiny",
        3.5,
        2.0,
        "yes",
    )
    assert "tiny" in told()


def test_a_package_that_no_server_would_load_is_listed_with_the_reason(cache):
    (cache.folder / "abc-def").chmod(0o777)
    [row] = json.loads(told("--json"))
    assert "can be written to by other users" in row["loads"]


def test_clearing_leaves_none(cache):
    assert "removed" in told("--clear")
    assert "no package in" in told()


def test_compiling_without_a_compiler_is_one_line(cache, in_process, model_folder, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = CliRunner().invoke(main, ["compile", str(model_folder("llama"))])
    assert result.exit_code == 1
    assert "a C++ compiler, no-such-compiler is not there" in result.output


@pytest.mark.parametrize(("family", "reason"), [("gpt2", "not all fused"), ("t5", "models that make texts of others")])
def test_compiling_a_model_that_has_no_step_is_one_line(cache, in_process, model_folder, family, reason):
    result = CliRunner().invoke(main, ["compile", str(model_folder(family))])
    assert result.exit_code == 1
    assert reason in result.output
