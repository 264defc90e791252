"""Whatever the process that compiles does, the server learns it in one line; nothing is left running or lying about.

A stand-in for it has the real one's limits and end.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from app.core.settings import load_settings
from app.engine.loading.compiling import compile_pace
from app.models.compiled import compile_child, package_maker
from app.models.compiled.compiled_step import store_of
from app.models.compiled.inductor import require_compiler
from app.models.compiled.package_facts import facts_of
from app.models.compiled.package_maker import Wish, has_made, locked
from app.models.compiled.package_store import PackageError
from app.models.compiled.products import Form
from app.models.compiled.steps.step_shape import Shape
from tests.waiting import wait_until

SHAPE = Shape(
    *(2, 64, 4, 2, 16, 128, 400, "silu", 0.25),
    epsilons=(1e-5, 1e-5, 1e-5),
    forms=(Form("plain", False),) * 4,
    head_form=Form("plain", False),
    dtype="float32",
)


class Making:
    """A wish, and the stand-in that is to grant it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        settings = load_settings({"FORKLIFT_MODEL": "unused", "FORKLIFT_CACHE_DIR": str(folder / "cache")})
        self.wish = Wish(settings, SHAPE, weight_bytes=1000, promised_bytes=0)
        self.store = store_of(settings)
        self.cache = settings.cache_path
        self.said = folder / "said.json"
        self._patch = monkeypatch
        monkeypatch.setattr(compile_child, "CHILD", "tests.compiling_child")
        monkeypatch.setenv("CXX", "true")
        monkeypatch.setenv("STAND_IN_FILE", str(self.said))
        monkeypatch.setenv("STAND_IN_FACTS", json.dumps([self.wish.key, facts_of(SHAPE)]))

    def by(self, stand_in: str, **options) -> str | None:
        self._patch.setenv("STAND_IN", stand_in)
        return has_made(self.wish, **options)

    def told(self) -> dict:
        wait_until(self.said.exists)
        return json.loads(self.said.read_text())


@pytest.fixture
def making(tmp_path, monkeypatch):
    return Making(tmp_path, monkeypatch)


def test_tests_have_no_compiler_but_where_they_bring_one(monkeypatch):
    with pytest.raises(PackageError, match="no-compiler-in-tests is not there"):
        require_compiler()


def test_a_package_is_made_and_the_scratch_folder_removed(making):
    assert making.by("makes") is None
    assert making.store.check(making.wish.key).about["facts"] == facts_of(SHAPE)
    assert [path.name for path in making.cache.iterdir()] == ["compiled"]


def test_a_package_that_is_there_is_not_made_again(making):
    assert making.by("makes") is None
    assert making.by("is_killed") is None


def test_the_child_has_bounded_memory_and_only_its_models_settings(making):
    assert making.by("fails") == "the step could not be compiled"
    told = making.told()
    assert told["data"] == making.wish.needed_bytes + package_maker.UNTOUCHED_BYTES
    assert told["given"] == {
        "model": "unused",
        "model_name": "unused",
        "device": "cpu",
        "cache_dir": str(making.cache),
    }


@pytest.mark.parametrize(
    ("stand_in", "reason"),
    [
        ("is_killed", "its process was ended by signal 9: not the outcome"),
        ("crashes", "its process ended with code 1: RuntimeError: inductor has lost its way"),
        ("is_silent", "its process ended with code 0"),
    ],
)
def test_how_a_child_ended_is_said(making, stand_in, reason):
    assert (making.by(stand_in) or "").startswith(reason)
    assert making.store.packages() == []
    assert not (making.cache / "making").exists()


@pytest.mark.slow
def test_a_child_that_hangs_is_ended_with_the_compiler_that_it_has_started(making):
    assert making.by("hangs", within_s=3.0) == "it took longer than 3 s"
    told = making.told()
    wait_until(lambda: not any(is_running(pid) for pid in (told["pid"], told["compiler"])))


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def hanging(making, monkeypatch):
    """A child that compiles for ever."""
    monkeypatch.setenv("STAND_IN", "hangs")
    scratch = making.cache / "making"
    scratch.mkdir(parents=True)
    order = {"settings": {}, "memory_bytes": 1 << 33, "cpu_s": 60, "file_bytes": 1 << 20, "rests": True}

    def start() -> subprocess.Popen[bytes]:
        with (scratch / "said").open("wb") as output:
            child = compile_child.start(scratch, output.fileno(), output)
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
        return child

    return start


def test_the_child_ends_with_its_server(making, hanging):
    """Also where that is killed: nobody holds the other end of the pipe then."""
    child = hanging()
    told = making.told()
    child.stdin.close()
    assert child.wait(60) == -signal.SIGKILL
    wait_until(lambda: not any(is_running(pid) for pid in (told["pid"], told["compiler"])))


def status_of(pid: int) -> str:
    return psutil.Process(pid).status()


@pytest.mark.parametrize("end", ["server", "pacer"])
def test_a_compiler_that_rests_with_all_it_has_started_ends_all_the_same(making, hanging, monkeypatch, end):
    monkeypatch.setenv("STAND_IN_RESTS", "600")
    child = hanging()
    told = making.told()
    for pid in (told["pid"], told["compiler"]):
        wait_until(lambda pid=pid: status_of(pid) == psutil.STATUS_STOPPED)
    assert status_of(child.pid) != psutil.STATUS_STOPPED
    if end == "server":
        child.stdin.close()
    else:
        child.kill()
        wait_until(lambda: not is_running(told["pid"]))
        compile_child.end(child)
    assert child.wait(60) == -signal.SIGKILL
    wait_until(lambda: not any(is_running(pid) for pid in (told["pid"], told["compiler"])))


def test_a_compiler_that_rests_again_and_again_makes_its_package(making, monkeypatch):
    monkeypatch.setenv("STAND_IN_RESTS", "0.05")
    assert making.by("makes") is None
    assert making.store.check(making.wish.key).about["facts"] == facts_of(SHAPE)


def test_it_rests_where_it_had_to_wait_for_a_processor_or_nobody_knows():
    assert not compile_pace.must_rest(1.0, 1.0 + compile_pace.RUNS_S / 100)
    assert compile_pace.must_rest(1.0, 1.0 + compile_pace.RUNS_S)
    assert compile_pace.must_rest(None, 1.0) and compile_pace.must_rest(1.0, None)


def test_how_long_a_process_and_those_below_it_waited_is_the_kernels_own_count():
    with subprocess.Popen(["sh", "-c", "sleep 100 & echo; wait"], stdout=subprocess.PIPE) as shell:
        shell.stdout.readline()
        wait_until(lambda: len(compile_pace.family_of(shell.pid)) == 2)
        below = compile_pace.family_of(shell.pid)
        assert below == [shell.pid, psutil.Process(shell.pid).children()[0].pid]
        told = [float(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9 for pid in below]
        assert compile_pace.waited_s(shell.pid) >= sum(told) - 1e-6
        for pid in below:
            os.kill(pid, signal.SIGKILL)
    assert compile_pace.waited_s(shell.pid) in (0.0, None)


def test_a_full_disk_is_a_reason(making, monkeypatch):
    free = shutil.disk_usage(making.cache.parent)._replace(free=1 << 20)
    with monkeypatch.context() as full:
        full.setattr(compile_child.shutil, "disk_usage", lambda _: free)
        assert "has 1 MiB left" in (making.by("makes") or "")
    shutil.rmtree(making.cache)
    assert "cannot write to" in (making.by("fills_the_disk") or "")
    assert making.store.packages() == []


def test_a_disk_that_is_full_before_anything_was_made_is_a_reason(making, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    assert "No space left on device" in (making.by("makes") or "")


def test_without_a_compiler_nothing_is_started(making, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "needs a C++ compiler" in (making.by("is_killed") or "")
    assert not (making.cache / "making").exists()


def test_memory_that_is_promised_to_others_is_not_taken(making, monkeypatch):
    monkeypatch.setattr(package_maker, "free_bytes", lambda _: 2 << 30)
    promised = Wish(making.wish.settings, SHAPE, weight_bytes=1000, promised_bytes=(1 << 30) + 5000)
    monkeypatch.setenv("STAND_IN", "makes")
    assert has_made(promised) == "compiling needs 1.00 GiB of memory, 1.00 GiB are free"
    assert has_made(making.wish) is None


def test_a_folder_that_others_can_write_to_gets_nothing(making):
    making.store.folder.mkdir(parents=True)
    making.store.folder.chmod(0o777)
    assert "can be written to by other users" in (making.by("makes") or "")


def test_what_failed_is_not_tried_again_by_a_worker_of_the_same_server(making, monkeypatch):
    assert making.by("fails") == "the step could not be compiled"
    assert making.by("makes") == "the step could not be compiled (tried once by this server)"
    monkeypatch.setattr(package_maker.os, "getppid", lambda: 1)
    assert making.by("makes") is None


def test_only_one_process_compiles_and_the_others_wait_for_its_package(making, monkeypatch):
    monkeypatch.setattr(package_maker, "LOOK_S", 0.05)
    gate = making.said.with_name("gate")
    monkeypatch.setenv("STAND_IN_GATE", str(gate))
    monkeypatch.setenv("STAND_IN", "makes")
    started, found = [], []
    usual = package_maker.make_in_child
    monkeypatch.setattr(package_maker, "make_in_child", lambda *args: started.append(args) or usual(*args))
    threads = [threading.Thread(target=lambda: found.append(has_made(making.wish))) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: started)
    gate.touch()
    for thread in threads:
        thread.join(60)
    assert found == [None, None, None]
    assert len(started) == 1


def test_who_waits_for_another_process_stops_when_nobody_wants_the_package(making, monkeypatch):
    monkeypatch.setattr(package_maker, "LOOK_S", 0.01)
    asked = iter([True, True, False])
    with locked(making.store) as is_ours:
        assert is_ours
        assert has_made(making.wish, is_wanted=lambda: next(asked)) == "nobody wants it any more"
        assert "another process has been compiling" in (has_made(making.wish, within_s=0.0) or "")
