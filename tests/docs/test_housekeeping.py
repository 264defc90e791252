"""Files that a project is expected to have, and that stay true: version, pins, targets, hooks, licence."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import yaml

import app
from tools.pages import REPOSITORY

SETUP = configparser.ConfigParser()
SETUP.read(REPOSITORY / "setup.cfg")


def text_of(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def requirements() -> set[str]:
    """Names of all direct dependencies, as ``setup.cfg`` writes them."""
    lists = [SETUP["options"]["install_requires"], *SETUP["options.extras_require"].values()]
    lines = [line.partition(";")[0].strip() for entry in lists for line in entry.splitlines()]
    return {re.match(r"[\w.-]+", line)[0].lower() for line in lines if line and not line.startswith("#")}


def pins() -> dict[str, str]:
    lines = [line for line in text_of("constraints.txt").splitlines() if "==" in line and not line.startswith("#")]
    return {name.lower(): pinned for name, _, pinned in (line.partition("==") for line in lines)}


def documented_pins() -> dict[str, str]:
    rows = re.findall(
        r"^\| ([\w.-]+) \| ([\w. ]+) \| [^|]+ \| [^|]+ \|$", text_of("docs/dependencies.md"), re.MULTILINE
    )
    return {name.lower(): pinned for name, pinned in rows if name != "package"}


def test_the_version_stands_in_one_place():
    assert SETUP["metadata"]["version"] == "attr: app.__version__"
    code = [file for file in tracked_files() if file.endswith((".py", ".cfg", ".toml", "Dockerfile", "Makefile"))]
    pattern = re.compile(rf"(?<![\d.=]){re.escape(app.__version__)}(?![\d.])")
    places = [file for file in code if not file.startswith("tests/") and pattern.search(text_of(file))]
    assert places == ["app/__init__.py"]


def test_the_changelog_has_a_section_for_this_version():
    assert re.search(rf"^## {re.escape(app.__version__)}\b", text_of("CHANGELOG.md"), re.MULTILINE)


def test_the_package_says_that_it_is_typed():
    assert (REPOSITORY / "app" / "py.typed").is_file()
    assert "py.typed" in SETUP["options.package_data"]["app"].split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel that is built from what git tracks."""
    folder = tmp_path_factory.mktemp("wheel")
    for file in tracked_files():
        if not file.startswith(("tests/", "docs/", "benchmarks/")) and (REPOSITORY / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / file, folder / file)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", "made"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "."], cwd=folder, check=True, timeout=120)
    (made,) = (folder / "made").glob("*.whl")
    return set(zipfile.ZipFile(made).namelist())


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "app/py.typed",
        "app/client/connection/endpoint.py",
        "forklift_client.py",
        "app/models/demo/model.safetensors",
        "app/models/demo/tokenizer.json",
        "app/http/playground/playground.html",
        f"forklift_serve-{app.__version__}.data/data/share/forklift/gunicorn.conf.py",
        f"forklift_serve-{app.__version__}.data/data/share/forklift/wsgi.py",
    ],
)
def test_the_wheel_holds_what_a_server_needs(wheel, file):
    assert file in wheel


@pytest.mark.slow
def test_the_wheel_holds_nothing_but_the_package(wheel):
    folders = {Path(file).parts[0] for file in wheel}
    name = f"forklift_serve-{app.__version__}"
    assert folders == {"app", "forklift_client.py", f"{name}.data", f"{name}.dist-info"}


def test_the_licence_is_apache_2():
    assert SETUP["metadata"]["license"] == "Apache-2.0"
    assert "Apache License" in text_of("LICENSE")
    assert "Version 2.0" in text_of("LICENSE")


def test_every_dependency_is_documented_with_its_pin():
    expected = {name: pins().get(name, "not pinned") for name in requirements()}
    assert documented_pins() == expected


def test_every_pin_that_is_installed_here_is_the_tested_one():
    """The parts after a plus sign name a build: torch's CPU build has one."""
    wrong = {}
    for name, pinned in pins().items():
        try:
            here = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        if here != pinned:
            wrong[name] = (pinned, here)
    assert not wrong


def test_make_help_lists_every_target():
    rules = re.findall(r"^([a-z][a-z0-9-]*):(?!=)", text_of("Makefile"), re.MULTILINE)
    phony = text_of("Makefile").split(".PHONY:")[1].splitlines()[0].split()
    # Without what an outer make hands down: it would make this one speak of folders.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "help"]
    shown = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=True).stdout
    assert sorted(rules) == sorted(phony)
    assert [line.split()[0] for line in shown.splitlines()] == rules


@pytest.mark.parametrize("file", [".pre-commit-config.yaml"])
def test_the_commit_hooks_need_no_network(file):
    config = yaml.safe_load(text_of(file))
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {"ruff", "ruff-format", "mypy"} <= {hook["id"] for hook in hooks}
    assert {hook["language"] for hook in hooks} == {"system"}


def test_the_commit_hooks_run_what_make_lint_runs():
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", text_of("Makefile"), re.MULTILINE)[1]
    for hook in yaml.safe_load(text_of(".pre-commit-config.yaml"))["repos"][0]["hooks"]:
        words = hook["entry"].removeprefix(".venv/bin/").split()
        assert f"$(BIN)/{' '.join(words)}" in lint
