"""Fixtures of the commands' tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.cli.main import main
from tests.unit.cli.openai_double import running_double


@pytest.fixture
def double() -> Iterator[Any]:
    """An OpenAI-style server whose behaviour a test chooses."""
    with running_double() as server:
        yield server


@pytest.fixture
def forklift(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the program with arguments and an environment without settings."""
    for name in ("FORKLIFTCLIENT_URL", "FORKLIFTCLIENT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    # What other tests of this process set up, with streams that are closed by now, is not the program's.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])

    def run(*arguments: str, text: str | None = None, env: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=text, env=env)

    return run
