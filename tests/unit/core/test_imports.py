"""Arrows go one way: http -> engine -> models -> core; serve knows only core."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[3] / "app"
MAY_IMPORT = {
    "core": set(),
    "serve": {"core"},
    "models": {"core"},
    "engine": {"core", "models"},
    "reports": {"core", "models", "engine"},
    "http": {"core", "serve", "engine"},
    "cli": {"core", "serve", "models", "engine", "reports", "http"},
}
MASTER_ROOMS = ("core", "serve")
HEAVY = {"torch", "transformers", "flask", "flask_restful"}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules_of(room: str) -> list[Path]:
    return sorted((APP / room).rglob("*.py"))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_arrow_points_back(room):
    allowed = MAY_IMPORT[room] | {room}
    for path in modules_of(room):
        rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("app.")}
        assert rooms & set(MAY_IMPORT) <= allowed, f"{path.relative_to(APP)} imports {rooms - allowed}"


@pytest.mark.parametrize("room", MASTER_ROOMS)
def test_what_the_master_imports_knows_neither_torch_nor_flask(room):
    for path in modules_of(room):
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & HEAVY, f"{path.relative_to(APP)} imports {roots & HEAVY}"


def test_every_room_has_modules():
    assert all(modules_of(room) for room in ("core", "serve", "models", "engine", "reports", "http"))
