from __future__ import annotations

import pytest

from app.core.errors import DeviceError, SettingsError
from app.core.settings import Settings
from app.serve.processes import gpus
from app.serve.processes.gpus import plan_slots, slot_environment

FOUR = {"CUDA_VISIBLE_DEVICES": "a,b,c,d"}


def plan(environ: dict[str, str], **settings: object) -> list[tuple[str, ...]]:
    return plan_slots(Settings.model_validate(settings), environ)


@pytest.fixture
def two_by_nvml(monkeypatch):
    monkeypatch.setattr(gpus, "_count_by_nvml", lambda: 2)


@pytest.fixture
def no_driver(monkeypatch):
    monkeypatch.setattr(gpus, "_count_by_nvml", lambda: 0)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_every_slot_gets_one_label_verbatim(device):
    assert plan(FOUR, device=device, workers=4) == [("a",), ("b",), ("c",), ("d",)]


def test_zero_workers_means_one_per_gpu_group():
    assert len(plan(FOUR)) == 4
    assert plan(FOUR, gpus_per_worker=2) == [("a", "b"), ("c", "d")]
    assert plan(FOUR, workers_per_gpu=2) == [("a",), ("b",), ("c",), ("d",)] * 2


def test_uuid_and_mig_names_are_kept():
    names = "GPU-8932f937-d72c,MIG-GPU-8932/1/0"
    assert plan({"CUDA_VISIBLE_DEVICES": names}) == [("GPU-8932f937-d72c",), ("MIG-GPU-8932/1/0",)]


def test_gpus_are_counted_by_nvml_when_no_variable_names_them(two_by_nvml):
    assert plan({}) == [("0",), ("1",)]


def test_the_cpu_does_not_ask_nvml(two_by_nvml):
    assert plan({}, device="cpu") == [()]


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_do_not_count(two_by_nvml, hidden):
    assert plan({"CUDA_VISIBLE_DEVICES": hidden}, workers=2) == [(), ()]


def test_entries_after_minus_one_do_not_count():
    assert plan({"CUDA_VISIBLE_DEVICES": "0,-1,1"}) == [("0",)]


def test_cuda_without_a_gpu_stops_the_start(no_driver):
    with pytest.raises(DeviceError, match="FORKLIFT_DEVICE is cuda"):
        plan({}, device="cuda")


def test_no_driver_means_one_worker_on_the_cpu(no_driver):
    assert plan({}) == [()]


def test_more_workers_than_gpus_have_room_for_are_refused():
    with pytest.raises(SettingsError, match="FORKLIFT_WORKERS is 5, but 4 GPUs have room for 4"):
        plan(FOUR, workers=5)
    with pytest.raises(SettingsError, match="FORKLIFT_GPUS_PER_WORKER is 5"):
        plan(FOUR, gpus_per_worker=5)


def test_on_the_cpu_workers_beyond_the_labels_have_none():
    assert plan({"CUDA_VISIBLE_DEVICES": "a"}, device="cpu", workers=3) == [("a",), (), ()]


def test_a_worker_is_bound_to_its_gpus_and_its_share_of_the_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(gpus.os, "sched_getaffinity", lambda _pid: set(range(7)), raising=False)
    environ = slot_environment(Settings(model=str(tmp_path)), ("c", "d"), 2, FOUR)
    assert environ == {
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "c,d",
        "OMP_NUM_THREADS": "3",
        "GOMP_SPINCOUNT": "10000",
        "HF_HUB_OFFLINE": "1",
    }


def test_indices_from_nvml_are_read_in_its_order():
    given = {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "ACTIVE"}
    environ = slot_environment(Settings(model="org/hub-id"), ("1",), 64, given)
    assert environ == {
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_worker_has_at_least_one_thread():
    assert slot_environment(Settings(), (), 256, {})["OMP_NUM_THREADS"] == "1"
