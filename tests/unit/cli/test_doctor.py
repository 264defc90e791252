"""``forklift doctor`` names each planted fault in one line, with what to do, and exits with 1."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.checking import machine
from app.cli.checking.device import driver_fault
from app.cli.checking.machine import is_excepted

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Neither settings nor proxies nor GPUs of the machine that the tests run on; a free port."""
    for name in list(os.environ):
        if name.startswith("FORKLIFT_") or name.lower() in ("http_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("FORKLIFT_DEVICE", "cpu")
    monkeypatch.setenv("FORKLIFT_BIND", "127.0.0.1:0")


@pytest.fixture
def folder(model_folder, tmp_path) -> Path:
    """A model folder of the test's own, to be damaged."""
    return Path(shutil.copytree(model_folder("qwen2"), tmp_path / "model"))


@pytest.fixture
def faults(forklift):
    """The faults of a run, as check and text."""

    def run(*arguments: str, **env: str) -> list[tuple[str, str]]:
        result = forklift("doctor", "--json", *arguments, env=env)
        found = json.loads(result.output)
        rows = [(row["check"], row["text"]) for row in found["findings"] if row["level"] == "fault"]
        assert result.exit_code == (1 if rows else 0)
        assert found["ok"] == (not rows)
        assert all(row["advice"] and "\n" not in row["text"] for row in found["findings"] if row["level"] == "fault")
        return rows

    return run


def single(found: list[tuple[str, str]]) -> str:
    """The text of the only fault."""
    assert len(found) == 1, found
    return found[0][1]


def test_a_sound_machine_has_no_fault(faults, folder):
    assert faults("--model", str(folder)) == []


def test_every_wrong_setting_is_named_not_only_the_first(faults, folder):
    env = {"FORKLIFT_MAX_QUEU": "3", "FORKLIFT_MAX_BATCH_SIZE": "0", "FORKLIFT_WORKERS": "many"}
    found = dict.fromkeys(text for check, text in faults("--model", str(folder), **env) if check == "settings")
    assert [text.split(":")[0].split(";")[0] for text in found] == [
        "unknown setting FORKLIFT_MAX_QUEU",
        "FORKLIFT_MAX_BATCH_SIZE",
        "FORKLIFT_WORKERS",
    ]


def test_settings_that_do_not_go_together_are_named(faults, folder):
    env = {"FORKLIFT_DEFAULT_NEW_TOKENS": "9", "FORKLIFT_MAX_NEW_TOKENS": "8"}
    assert "DEFAULT_NEW_TOKENS is above MAX_NEW_TOKENS" in single(faults("--model", str(folder), **env))


def test_a_model_folder_that_is_not_there(faults, tmp_path):
    assert "does not exist" in single(faults("--model", str(tmp_path / "none")))


def test_a_missing_config(faults, folder):
    (folder / "config.json").unlink()
    assert "no config.json" in single(faults("--model", str(folder)))


@pytest.mark.parametrize("text", ['{"model_type": ', "[]", "{}", '{"model_type": "no-such-type"}'])
def test_a_config_that_is_no_config(faults, folder, text):
    (folder / "config.json").write_text(text)
    [(check, line)] = faults("--model", str(folder))
    assert check == "model"
    assert str(folder) in line or "config" in line


def test_weights_that_are_pickle_files_only(faults, folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin is a pickle file" in single(faults("--model", str(folder)))


def test_a_shard_that_the_index_names_and_the_folder_lacks(faults, folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "model-00002-of-00002.safetensors" in single(faults("--model", str(folder)))


@pytest.mark.parametrize("damage", ["short", "zeros", "pointer", "empty"])
def test_weights_that_were_not_copied_whole(faults, folder, damage):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    damaged = {
        "short": data[:-100],
        "zeros": bytes(len(data)),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
        "empty": b"",
    }
    file.write_bytes(damaged[damage])
    assert "model.safetensors" in single(faults("--model", str(folder)))


def test_a_missing_tokenizer(faults, folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    [(check, _)] = faults("--model", str(folder))
    assert check == "tokenizer"


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("qwen2", "has a chat template, fills holes"),
        ("chatglm", "chats in rounds"),
        ("plain", "has a chat template, no infilling format"),
        ("bert", " tokens"),
    ],
)
def test_what_a_model_can_do_is_told_with_its_tokenizer(forklift, model_folder, family, words):
    result = forklift("doctor", "--model", str(model_folder(family)), "--json")
    [told] = [one["text"] for one in json.loads(result.output)["findings"] if one["check"] == "tokenizer"]
    assert words in told


def test_a_port_that_is_taken(faults, folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot listen on {bind}" in single(faults("--model", str(folder), FORKLIFT_BIND=bind))


def test_of_several_addresses_each_is_tried(faults, folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:0, 127.0.0.1:{taken.getsockname()[1]}"
        assert "cannot listen on 127.0.0.1:" in single(faults("--model", str(folder), FORKLIFT_BIND=bind))


@pytest.mark.parametrize("bind", ["192.0.2.1:5000", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_listened_on(faults, folder, bind):
    assert bind in single(faults("--model", str(folder), FORKLIFT_BIND=bind))


def test_a_kv_cache_that_does_not_fit_the_memory(faults, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2**24}))
    env = {"FORKLIFT_MAX_BATCH_SIZE": "1024", "FORKLIFT_MAX_CONTEXT_TOKENS": str(2**24)}
    found = single(faults("--model", str(folder), **env))
    # 2 layers, keys and values, 2 heads of 16 floats: 512 bytes per token.
    assert f"{512 * 2**24 * 1024 / 2**30:.0f}" in found.replace(",", "")
    assert "needed for weights and full KV cache" in found


def test_weights_that_do_not_fit_the_memory_though_they_fit_the_disk(faults, folder):
    large = {"dtype": "F32", "shape": [2**45], "data_offsets": [0, 2**40]}
    header = json.dumps({f"model.layers.{index}.a": large for index in range(2)}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**40)
    # A sparse file: it says 1 TiB and takes a page.
    assert "free" in single(faults("--model", str(folder), FORKLIFT_DTYPE="float32"))


@pytest.mark.parametrize("env", [{"CUDA_VISIBLE_DEVICES": "0", "FORKLIFT_DEVICE": "auto"}, {"FORKLIFT_DEVICE": "cuda"}])
def test_a_gpu_that_was_promised_and_cannot_be_used(forklift, folder, env):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = forklift("doctor", "--json", "--model", str(folder), env=env)
    rows = [row for row in json.loads(result.output)["findings"] if row["check"] == "device"]
    assert [row["level"] for row in rows] == ["fault"]
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("driver", "built", "is_fault"),
    [((12, 4), "12.8", False), ((13, 0), "12.8", False), ((12, 4), "13.0", True), (None, "13.0", False)],
)
def test_a_driver_runs_the_cuda_versions_up_to_its_own(driver, built, is_fault):
    assert (driver_fault(driver, built) is not None) == is_fault


def run_with(site: Path, folder: Path) -> tuple[int, list[dict[str, str]]]:
    """Exit code and findings of a process that finds packages in ``site`` before all others."""
    environ = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    command = [
        sys.executable,
        "-c",
        "from app.cli.main import main; main()",
        "doctor",
        "--json",
        "--model",
        str(folder),
    ]
    done = subprocess.run(command, env=environ, cwd=site, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


@pytest.mark.slow
def test_a_library_that_cannot_be_imported_is_a_finding_and_no_end(folder, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "transformers.py").write_text("raise ImportError('libfoo.so.1 is not there')")
    code, findings = run_with(tmp_path / "site", folder)
    assert code == 1
    assert any("libfoo.so.1 is not there" in row["text"] for row in findings if row["level"] == "fault")


@pytest.mark.slow
def test_libraries_of_other_versions(folder, tmp_path):
    for name, version in (("transformers", "4.40.0"), ("gunicorn", "28.0.0"), ("torch", "2.1.0")):
        info = tmp_path / "site" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    code, findings = run_with(tmp_path / "site", folder / "none")
    found = [row["text"] for row in findings if row["check"] == "libraries"]
    assert [text.split(" is outside")[0] for text in sorted(found)] == [
        "gunicorn 28.0.0",
        "torch 2.1.0",
        "transformers 4.40.0",
    ]
    assert code == 1


def test_shared_memory_that_is_not_there_or_too_small(faults, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    assert "cannot be written" in single(faults("--model", str(folder)))
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(machine, "SHARED_MEMORY_BYTES", 2**60)
    assert "are needed" in single(faults("--model", str(folder)))


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_would_be_asked_for_this_machine(faults, folder, name):
    env = {name: "http://192.0.2.1:3128", "no_proxy": "intranet.example"}
    assert f"{name} is set" in single(faults("--model", str(folder), **env))


@pytest.mark.parametrize(
    ("exceptions", "expected"),
    [("localhost,127.0.0.1", True), ("*", True), ("127.0.0.0/8", True), ("", False), ("27.0.0.1", False)],
)
def test_exceptions_from_a_proxy_are_read_as_curl_reads_them(exceptions, expected):
    assert is_excepted("127.0.0.1", {"NO_PROXY": exceptions}) == expected


@pytest.fixture
def few_files():
    """As many open files as many systems allow a shell that was not told otherwise, or fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_for_the_threads(faults, folder, few_files):
    assert "1024 open files are allowed" in single(faults("--model", str(folder), FORKLIFT_HTTP_THREADS="1000"))


def test_too_few_open_files_for_many_connections_are_a_warning(forklift, folder, few_files):
    rows = json.loads(forklift("doctor", "--json", "--model", str(folder)).output)["findings"]
    assert [row["level"] for row in rows if row["check"] == "open files"] == ["warning"]


def test_a_disk_that_is_full(faults, folder, monkeypatch):
    monkeypatch.setattr(machine, "DISK_BYTES", 2**60)
    assert "temporary files" in single(faults("--model", str(folder)))


def test_what_is_slow_but_works_is_a_warning(forklift, folder):
    result = forklift("doctor", "--json", "--model", str(folder), env={"FORKLIFT_DTYPE": "float16"})
    rows = json.loads(result.output)["findings"]
    assert ("warning", "float16 is slow on a CPU") in [(row["level"], row["text"]) for row in rows]
    assert result.exit_code == 0


def test_several_models_are_checked_one_by_one(faults, folder, tmp_path):
    tables = tmp_path / "models.toml"
    tables.write_text(f'[one]\npath = "{folder}"\n[two]\npath = "{tmp_path}/gone"\n')
    assert "gone does not exist" in single(faults(FORKLIFT_MODELS=str(tables)))


def test_people_get_a_table_with_the_advice(forklift, tmp_path):
    result = forklift("doctor", "--model", str(tmp_path / "none"))
    assert "FAULT" in result.output
    assert "copy the model folder again" in result.output
    assert result.output.endswith("1 fault\n")


def test_a_server_that_does_not_answer_or_is_none(forklift, double):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        result = forklift("doctor", "--url", f"http://127.0.0.1:{sock.getsockname()[1]}")
    assert result.exit_code == 1
    assert "Connection refused" in result.output


@pytest.mark.parametrize("page", [["up"], {"slots": []}, {"state": "ready", "slots": [{"slot": 0}]}, None])
def test_a_server_of_another_kind_is_a_fault_and_no_traceback(forklift, double, page):
    double.pages = {"/readyz": page}
    result = forklift("doctor", "--url", double.url, "--json")
    assert result.exit_code == 1
    assert "no JSON of slots" in result.output


def test_what_a_running_server_says_is_told_slot_by_slot(forklift, double):
    slots = [{"slot": 0, "state": "ready"}, {"slot": 1, "state": "loading"}]
    double.pages = {"/readyz": {"state": "ready", "slots": slots}}
    result = forklift("doctor", "--url", double.url, "--json")
    found = json.loads(result.output)["findings"]
    assert [(one["level"], one["text"]) for one in found[1:]] == [
        ("ok", "the server is ready"),
        ("warning", "worker slot 1 is loading"),
        ("ok", "first, second"),
    ]
    double.pages["/v1/models"] = {"models": []}
    assert "did not answer a list of models" in forklift("doctor", "--url", double.url, "--json").output


def test_a_model_and_a_url_together_are_wrong_usage(forklift):
    assert forklift("doctor", "--model", "x", "--url", "http://127.0.0.1:1").exit_code == 2


@pytest.mark.slow
def test_a_library_newer_than_any_that_was_tested_is_a_warning(folder, tmp_path):
    for name, version in (("transformers", "5.99.0"), ("torch", "2.13.0")):
        info = tmp_path / "site" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    _, findings = run_with(tmp_path / "site", folder / "none")
    [found] = [row for row in findings if row["check"] == "libraries" and row["level"] != "ok"]
    assert found["level"] == "warning"
    assert found["text"].startswith("transformers 5.99.0 was never tested: the newest that was is 5.")
