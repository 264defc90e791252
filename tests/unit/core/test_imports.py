"""Arrows go one way: http -> engine -> models -> core; serve knows only core, and of the client what a registry holds.

At run time http knows no models, serve no engine, and neither knows torch. To the type checker they name the classes,
so that it compares what is called with what is there; those arrows go the same way.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import imports_of

APP = Path(__file__).resolve().parents[3] / "app"
MAY_IMPORT = {
    "client": set(),
    "core": set(),
    "serve": {"core", "client"},
    "models": {"core"},
    "engine": {"core", "models"},
    "reports": {"core", "models", "engine"},
    "http": {"core", "serve", "engine"},
    "rpc": {"core", "serve", "http", "client"},
    "cluster": {"core", "serve", "models", "engine", "http"},
    "cli": {"client", "core", "serve", "models", "engine", "reports", "http", "cluster"},
}
# Under TYPE_CHECKING also these.
MAY_NAME = {"serve": {"engine"}, "http": {"models"}}
MASTER_ROOMS = ("core", "serve")
HEAVY = {"torch", "transformers", "flask", "flask_restful"}
HTTP_WITHOUT = ("torch", "transformers", "accelerate", "app.models", "app.engine.thread")


def modules_of(room: str) -> list[Path]:
    return sorted((APP / room).rglob("*.py"))


def rooms_of(path: Path, *, at_run_time: bool) -> set[str]:
    names = imports_of(path, at_run_time=at_run_time)
    return {name.split(".")[1] for name in names if name.startswith("app.")} & set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_arrow_points_back(room):
    allowed = MAY_IMPORT[room] | {room}
    for path in modules_of(room):
        rooms = rooms_of(path, at_run_time=True)
        assert rooms <= allowed, f"{path.relative_to(APP)} imports {rooms - allowed}"


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_arrow_of_the_type_checker_points_back(room):
    allowed = MAY_IMPORT[room] | MAY_NAME.get(room, set()) | {room}
    for path in modules_of(room):
        rooms = rooms_of(path, at_run_time=False)
        assert rooms <= allowed, f"{path.relative_to(APP)} names {rooms - allowed}"


@pytest.mark.parametrize("room", MASTER_ROOMS)
def test_what_the_master_imports_knows_neither_torch_nor_flask(room):
    for path in modules_of(room):
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & HEAVY, f"{path.relative_to(APP)} imports {roots & HEAVY}"


def test_the_application_is_made_without_torch_the_models_and_their_thread():
    script = (
        f"import sys, app.http.application.factory\nprint(*(name for name in {HTTP_WITHOUT!r} if name in sys.modules))"
    )
    made = subprocess.run([sys.executable, "-c", script], cwd=APP.parent, capture_output=True, text=True, check=True)
    assert made.stdout.split() == []


def test_the_seam_is_the_real_classes():
    """What http calls the engine's and the models' parts is compared by the type checker, since it names them."""
    named = {name for path in modules_of("http") for name in imports_of(path)}
    for one in ("app.engine.loading.handle.ModelHandle", "app.models.text_model.TextModel"):
        assert one in named
    assert "app.engine.thread.inference.Inference" in imports_of(APP / "serve" / "context.py")


@pytest.mark.slow
def test_no_module_is_in_a_circle_also_not_for_the_type_checker():
    graph = {name_of(path): known(imports_of(path)) - {name_of(path)} for path in APP.rglob("*.py")}
    while leaves := [name for name, named in graph.items() if not named]:
        for name in leaves:
            del graph[name]
        for named in graph.values():
            named.difference_update(leaves)
    assert not graph, f"these lead to a circle or lie in one: {sorted(graph)}"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(APP.parent).with_suffix("").parts).removesuffix(".__init__")


def known(names: set[str]) -> set[str]:
    """The modules of ours among ``names``; a package counts where nothing inside of it is named."""
    ours = names & {name_of(path) for path in APP.rglob("*.py")}
    return {one for one in ours if not any(other.startswith(f"{one}.") for other in ours)}


def test_every_room_has_modules():
    assert all(modules_of(room) for room in ("core", "serve", "models", "engine", "reports", "http"))
