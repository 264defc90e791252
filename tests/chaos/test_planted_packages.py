"""A real server finds a real package with something wrong about it: it serves what it would without, and says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.core.settings import load_settings
from app.engine.loading.compiling.packaging import make_package
from app.models.compiled.native_build import LIBRARY, SOURCE, compile_library
from app.models.compiled.package_facts import key_of
from app.models.compiled.package_store import FACTS_FILE, FOLDER, Store
from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]
BODY = {"prompt": "def number(", "max_new_tokens": 40, "ignore_eos": True, "temperature": 0}
ALL_LAYERS, NOT_THE_FIRST = "for (int64_t l = 0; l < call.num_layers", "for (int64_t l = 1; l < call.num_layers"


@pytest.fixture(scope="module")
def packages(model_folder, tmp_path_factory) -> dict[str, Path]:
    """Cache folders with the package of a model each; that they save much is pretended: the models are tiny."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "g++")
        patch.setattr(
            "app.engine.loading.compiling.packaging.alternately",
            lambda runs, _: [10.0 / (1 + i) for i in range(len(runs))],
        )
        for family in ("llama", "qwen2"):
            found[family] = tmp_path_factory.mktemp(family)
            environ = {"FORKLIFT_MODEL": str(model_folder(family)), "FORKLIFT_CACHE_DIR": str(found[family])}
            make_package(load_settings(environ), lambda _: None)
    return found


@pytest.fixture(scope="module")
def expected(model_folder, tmp_path_factory) -> str:
    """The answer without a package."""
    starter = server_starter(tmp_path_factory.mktemp("eager"), Forklift)
    text = completion(next(starter)(MODEL=str(model_folder("llama"))))
    next(starter, None)
    return text


@pytest.fixture
def start(tmp_path, packages, model_folder):
    """A server that has no compiler, on a copy of the packages in ``cache``."""
    starter = server_starter(tmp_path, Forklift)
    begin = next(starter)
    settings = {"COMPILE": "auto", "CACHE_DIR": str(tmp_path / "cache"), "LOG_FORMAT": "json"}
    yield lambda: begin(MODEL=str(model_folder("llama")), **settings)
    next(starter, None)


@pytest.fixture
def package(tmp_path, packages) -> Path:
    """The folder of the right package."""
    shutil.copytree(packages["llama"], tmp_path / "cache")
    [folder] = (tmp_path / "cache" / FOLDER).glob("[!.]*")
    return folder


def completion(server: Forklift) -> str:
    text = server.post("/complete", json=BODY).json()["completion"]
    assert isinstance(text, str)
    return text


def is_compiled(server: Forklift) -> bool:
    [engine] = server.get("/readyz")[1]["engines"]
    return bool(engine["compiled"])


def facts_in(package: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((package / FACTS_FILE).read_text())
    return about


def cut(package: Path, _packages: dict[str, Path]) -> None:
    library = package / LIBRARY
    library.write_bytes(library.read_bytes()[: library.stat().st_size // 2])


def make_for_another_processor(package: Path, _packages: dict[str, Path]) -> None:
    about = facts_in(package)
    about["facts"]["processor"] += " amx_tile"
    (package / FACTS_FILE).write_text(json.dumps(about))
    package.rename(package.with_name(key_of(about["facts"])))


def take_another_models(package: Path, packages: dict[str, Path]) -> None:
    [other] = (packages["qwen2"] / FOLDER).glob("[!.]*")
    shutil.rmtree(package)
    shutil.copytree(other, package)


def put_no_code(package: Path, _packages: dict[str, Path]) -> None:
    """Whole, by its sums, and none that can be loaded."""
    put(package, b"not a library")


def put(package: Path, library: bytes) -> None:
    file = package.parent.parent / "planted"
    file.write_bytes(library)
    about = {name: value for name, value in facts_in(package).items() if name != "sums"}
    Store(package.parent.parent, 1 << 30).add(package.name, {LIBRARY: file}, about)


@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (cut, "is not as it was made"),
        (make_for_another_processor, "was made for another processor"),
        (take_another_models, "is not what its name says"),
        (put_no_code, "cannot be loaded"),
    ],
)
def test_a_package_that_does_not_fit_is_named_and_not_used(start, package, packages, expected, plant, reason):
    plant(package, packages)
    server = start()
    assert completion(server) == expected
    assert not is_compiled(server)
    [line] = server.log_lines("compiled_step_not_used")
    assert reason in line["reason"]


def test_a_package_with_one_wrong_layer_is_found_at_the_load(start, package, expected, tmp_path):
    right = SOURCE.read_text()
    assert right.count(ALL_LAYERS) == 1
    wrong = tmp_path / SOURCE.name
    wrong.write_text(right.replace(ALL_LAYERS, NOT_THE_FIRST))
    kinds = [f"-D{name}=Float32" for name in ("WEIGHT", "HEAD", "CACHE")]
    put(package, compile_library(wrong, "g++", tmp_path, kinds).read_bytes())
    server = start()
    assert completion(server) == expected
    assert not is_compiled(server)
    [line] = server.log_lines("step_failed_check")
    assert line["step"] == "compiled"


def test_the_package_as_it_was_made_is_used_and_says_the_same(start, package, expected):
    server = start()
    assert is_compiled(server)
    assert completion(server) == expected
