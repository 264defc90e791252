"""Amounts of memory in settings: what can be written, and one line for what cannot."""

from __future__ import annotations

import pytest

from app.core.errors import SettingsError
from app.core.parsing.sizes import parse_bytes, parse_memory_limits
from app.core.settings import load_settings


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GiB", 20 * 2**30), ("1.5 gb", 1_500_000_000), ("7", 7), ("0", 0), (" 2MiB ", 2**21), ("3KB", 3000)],
)
def test_a_size_has_a_number_and_perhaps_a_unit(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1e9", "20 gibi", "1,5GB", "1GiBs"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is not a size such as 20GiB"):
        parse_bytes(text)


def test_limits_name_gpus_by_number_and_the_cpu():
    assert parse_memory_limits("0=20GiB, 1 = 1MiB,CPU=5") == {0: 20 * 2**30, 1: 2**20, "cpu": 5}


@pytest.mark.parametrize("text", ["20GiB", "0=", "gpu0=1GiB", "0=1GiB,", "0=1GiB,0=2GiB", "disk=1GiB", "-1=1GiB"])
def test_bad_limits_are_one_line_that_names_the_setting(text):
    with pytest.raises(SettingsError) as raised:
        load_settings({"FORKLIFT_MAX_MEMORY": text})
    assert str(raised.value).startswith("FORKLIFT_MAX_MEMORY: ")
    assert "\n" not in str(raised.value)


def test_limits_are_for_gpus_that_a_worker_has():
    assert load_settings({"FORKLIFT_MAX_MEMORY": "1=1GiB", "FORKLIFT_GPUS_PER_WORKER": "2"}).memory_limits == {1: 2**30}
    with pytest.raises(SettingsError, match="MAX_MEMORY names GPU 1"):
        load_settings({"FORKLIFT_MAX_MEMORY": "1=1GiB"})


@pytest.mark.parametrize("name", ["MAX_MEMORY", "OFFLOAD_FOLDER"])
def test_quantised_weights_are_not_placed(name):
    with pytest.raises(SettingsError, match="QUANTIZATION does not go with"):
        load_settings({f"FORKLIFT_{name}": "cpu=1GiB", "FORKLIFT_QUANTIZATION": "int8"})


def test_without_the_setting_there_are_no_limits():
    assert load_settings({}).memory_limits == {}
