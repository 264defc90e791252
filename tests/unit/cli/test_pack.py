"""``forklift pack``: a kit whose wheels install without an index, whose files are checked, and without pickles."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

from app import __version__
from app.cli.packing import PackError, kit
from app.cli.packing.closure import closure
from app.cli.packing.project import build_wheel, requirements
from app.cli.packing.recipes import dockerfile, install_script
from app.cli.packing.wheels import rebuild

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]


@pytest.fixture
def folder(model_folder, tmp_path) -> Path:
    return Path(shutil.copytree(model_folder("qwen2"), tmp_path / "model"))


@pytest.fixture
def no_index(monkeypatch):
    """pip's index is a port where nobody listens."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")


@pytest.fixture
def installed(tmp_path) -> Distribution:
    """A small distribution as pip leaves it: module, two scripts, a page of data, caches, its own notes."""
    site = tmp_path / "env" / "lib" / "python3" / "site-packages"
    info = site / "Odd_Name-1.2+local.dist-info"
    files = {
        site / "odd" / "__init__.py": "VALUE = 7\n",
        site / "odd" / "__pycache__" / "x.pyc": "",
        site / "odd" / "data,with comma.txt": "ä",
        tmp_path / "env" / "bin" / "made": "#!made by pip",
        tmp_path / "env" / "bin" / "own": "#!/bin/sh\necho own\n",
        tmp_path / "env" / "share" / "man" / "odd.1": "page",
        info / "METADATA": "Metadata-Version: 2.1\nName: Odd.Name\nVersion: 1.2+local\n",
        info / "WHEEL": "Wheel-Version: 1.0\nTag: py2-none-any\nTag: py3-none-any\n",
        info / "INSTALLER": "pip",
        info / "entry_points.txt": "[console_scripts]\nmade = odd:main\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "env" / "bin" / "own").chmod(0o755)
    rows = [f'"{os.path.relpath(path, site)}",,' for path in files]
    (info / "RECORD").write_text("\n".join([*rows, f"{info.name}/RECORD,,"]) + "\n")
    return Distribution.at(info)


def test_an_installed_distribution_becomes_a_wheel_that_pip_installs(installed, tmp_path):
    wheel = rebuild(installed, tmp_path)
    assert wheel.name == "odd_name-1.2+local-py2.py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    data = "odd_name-1.2+local.data"
    assert {f"{data}/scripts/own", f"{data}/data/share/man/odd.1", "odd/__init__.py"} <= names
    assert not any(name.endswith(("made", ".pyc", "INSTALLER")) for name in names)
    done = subprocess.run([*PIP, "--target", str(tmp_path / "to"), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "to" / "odd" / "data,with comma.txt").read_text(encoding="utf-8") == "ä"


def test_the_same_files_make_the_same_wheel(installed, tmp_path):
    first = rebuild(installed, tmp_path).read_bytes()
    assert rebuild(installed, tmp_path).read_bytes() == first


def test_scripts_can_be_run_and_other_files_not(installed, tmp_path):
    with zipfile.ZipFile(rebuild(installed, tmp_path)) as archive:
        modes = {Path(one.filename).name: stat.S_IMODE(one.external_attr >> 16) for one in archive.infolist()}
    assert (modes["own"], modes["__init__.py"]) == (0o755, 0o644)


def test_an_installation_that_lost_a_file_is_not_packed(installed, tmp_path):
    Path(str(installed.locate_file("odd/__init__.py"))).unlink()
    with pytest.raises(PackError, match=r"odd/__init__\.py is gone"):
        rebuild(installed, tmp_path)


def test_a_real_distribution_keeps_every_file(tmp_path):
    click = distribution("click")
    with zipfile.ZipFile(rebuild(click, tmp_path)) as archive:
        for file in click.files:
            if file.suffix == ".py":
                assert archive.read(str(file)) == Path(str(file.locate())).read_bytes()


def test_what_is_needed_is_followed_all_the_way_down():
    found = closure(["flask"])
    assert {"flask", "werkzeug", "jinja2", "markupsafe", "click"} <= set(found)
    assert "pytest" not in found


@pytest.mark.parametrize("line", ["no-such-distribution-at-all", "click<1"])
def test_what_is_needed_and_not_installed_is_named(line):
    with pytest.raises(PackError, match="is needed"):
        closure([line])


def test_extras_are_asked_for_by_name():
    assert set(requirements(["zookeeper"])) - set(requirements()) == {"kazoo >=2.10"}
    with pytest.raises(PackError, match="there is no extra 'zoo'"):
        requirements(["zoo"])


@pytest.mark.slow
def test_the_projects_own_wheel_has_the_code_the_server_files_and_the_requirements(tmp_path):
    with zipfile.ZipFile(build_wheel(tmp_path)) as archive:
        names = archive.namelist()
        info = f"forklift_serve-{__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert b"forklift = app.cli.entry:run" in archive.read(f"{info}/entry_points.txt")
    assert f"forklift_serve-{__version__}.data/data/share/forklift/gunicorn.conf.py" in names
    assert "app/models/demo/model.safetensors" in names
    assert "app/http/playground/playground.html" in names
    assert not any("__pycache__" in name or name.startswith("tests") for name in names)
    assert [line[15:] for line in metadata.splitlines() if line.startswith("Requires-Dist")] == requirements()


@pytest.fixture
def small(monkeypatch):
    """A kit of few wheels; everything else is as it is."""
    monkeypatch.setattr(kit, "requirements", lambda *_: ["requests"])


@pytest.mark.slow
def test_without_an_index_the_wheels_are_those_of_what_is_installed(forklift, small, no_index, tmp_path):
    result = forklift("pack", "--output", str(tmp_path / "kit"), "--json")
    assert result.exit_code == 0, result.output
    assert "the package index could not be used" in " ".join(result.stderr.split())
    facts = json.loads(result.stdout)
    assert set(facts["wheels"].values()) == {"installed", "this version of Forklift"}
    wheels = sorted(path.name for path in (tmp_path / "kit" / "wheels").iterdir())
    assert wheels == sorted(facts["wheels"])
    assert any(name.startswith(f"requests-{distribution('requests').version}") for name in wheels)
    pins = (tmp_path / "kit" / "requirements.txt").read_text().split()
    assert f"forklift-serve=={__version__}" in pins
    target = ["--find-links", str(tmp_path / "kit" / "wheels"), "--target", str(tmp_path / "to")]
    requirement = ["--requirement", str(tmp_path / "kit" / "requirements.txt")]
    done = subprocess.run([*PIP, *target, *requirement], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["kit", "kit.tar"])
def test_a_kit_is_verified_file_by_file(forklift, folder, tmp_path, name):
    output = tmp_path / name
    assert forklift("pack", "--no-wheels", "--model", str(folder), "--output", str(output)).exit_code == 0
    assert [path.name for path in tmp_path.glob(".forklift-pack-*")] == []
    result = forklift("pack", "--verify", str(output))
    assert (result.exit_code, "every file is as it was packed" in result.output) == (0, True)
    if name == "kit.tar":
        with tarfile.open(output) as archive:
            # The first releases of Python 3.11 have no filters.
            archive.extractall(tmp_path / "out", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        output = tmp_path / "out" / "kit"
    (output / "models" / "model" / "config.json").write_text("{}")
    (output / "models" / "model" / "tokenizer.json").unlink()
    (output / "models" / "model" / "new.txt").write_text("x")
    result = forklift("pack", "--verify", str(output))
    assert result.exit_code == 1
    for line in ("config.json is changed", "tokenizer.json is missing", "new.txt is not part of the kit"):
        assert f"models/model/{line}" in result.output


def test_a_tar_that_was_cut_is_not_verified(forklift, folder, tmp_path):
    output = tmp_path / "kit.tar"
    forklift("pack", "--no-wheels", "--model", str(folder), "--output", str(output))
    output.write_bytes(output.read_bytes()[:5000])
    assert forklift("pack", "--verify", str(output)).exit_code == 1


def test_pickled_weights_beside_good_ones_stay_behind_and_are_told(forklift, folder, tmp_path):
    (folder / "training_args.bin").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    result = forklift("pack", "--no-wheels", "--model", str(folder), "--output", str(tmp_path / "kit"))
    assert result.exit_code == 0
    assert "left out: training_args.bin" in " ".join(result.stderr.split())
    packed = {path.name for path in (tmp_path / "kit" / "models" / "model").iterdir()}
    assert packed == {path.name for path in folder.iterdir()} - {"training_args.bin", ".git"}


def test_links_into_a_cache_become_files(forklift, folder, tmp_path):
    blob = tmp_path / "blob"
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert forklift("pack", "--no-wheels", "--model", str(folder), "--output", str(tmp_path / "kit")).exit_code == 0
    copied = tmp_path / "kit" / "models" / "model" / "model.safetensors"
    assert not copied.is_symlink()
    assert copied.read_bytes() == blob.read_bytes()


def test_a_model_with_a_fault_is_not_packed(forklift, folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    result = forklift("pack", "--no-wheels", "--model", str(folder), "--output", str(tmp_path / "kit"))
    assert result.exit_code == 1
    assert "pytorch_model.bin is a pickle file" in " ".join(result.stderr.split())
    assert not (tmp_path / "kit").exists()


def test_code_beside_the_weights_runs_only_where_it_is_trusted(forklift, folder, tmp_path):
    values = json.loads((folder / "tokenizer_config.json").read_text())
    values |= {"auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}, "tokenizer_class": "OwnTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    code = "from transformers import PreTrainedTokenizerFast\nclass OwnTokenizer(PreTrainedTokenizerFast):\n    pass\n"
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{code}")
    arguments = ["pack", "--no-wheels", "--model", str(folder), "--output", str(tmp_path / "kit")]
    forklift(*arguments)
    assert not (tmp_path / "ran").exists()
    shutil.rmtree(tmp_path / "kit", ignore_errors=True)
    result = forklift(*arguments, env={"FORKLIFT_TRUST_REMOTE_CODE": "true"})
    assert (result.exit_code, (tmp_path / "ran").exists()) == (0, True), result.output


@pytest.mark.parametrize("model", ["org/model", "."])
def test_what_is_no_model_folder_is_not_packed(forklift, tmp_path, model):
    assert forklift("pack", "--no-wheels", "--model", model, "--output", str(tmp_path / "kit")).exit_code == 1


def test_what_stands_at_the_output_is_never_overwritten(forklift, folder, tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "precious").write_text("x")
    result = forklift("pack", "--no-wheels", "--model", str(folder), "--output", str(tmp_path / "kit"))
    assert (result.exit_code, "exists" in result.output) == (1, True)
    assert (tmp_path / "kit" / "precious").read_text() == "x"


@pytest.mark.parametrize("arguments", [[], ["--no-wheels", "--output", "x"], ["--outputt", "x"]])
def test_a_kit_of_nothing_or_to_nowhere_is_wrong_usage(forklift, arguments):
    assert forklift("pack", *arguments).exit_code == 2


def test_the_install_script_is_one_for_sh_and_stops_at_another_python(tmp_path):
    script = tmp_path / "install.sh"
    script.write_text(install_script("3.11", os.uname().machine, ["m"]))
    assert subprocess.run(["sh", "-n", str(script)], capture_output=True).returncode == 0
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 2.7\n")
    other.chmod(0o755)
    environ = {**os.environ, "PYTHON": str(other)}
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, env=environ)
    assert (done.returncode, "Python 3.11" in done.stderr) == (1, True)


@pytest.mark.slow
def test_the_install_script_stops_at_a_file_that_was_changed(forklift, small, tmp_path):
    output = tmp_path / "kit"
    assert forklift("pack", "--no-index", "--output", str(output)).exit_code == 0
    (output / "kit.json").write_text("{}")
    environ = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["sh", str(output / "install.sh")], capture_output=True, text=True, env=environ)
    assert done.returncode != 0
    assert "kit.json: FAILED" in done.stdout + done.stderr
    assert not (output / "environment").exists()


def test_the_image_recipe_copies_the_models_and_serves_the_first():
    text = dockerfile("3.11", ["a", "b"])
    assert "COPY models/a /models/a\nCOPY models/b /models/b\nENV FORKLIFT_MODEL=/models/a\n" in text
    assert "--no-index" in text
