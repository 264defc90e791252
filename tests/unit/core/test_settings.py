"""Settings come from the environment, once, and a bad one is one clear line."""

from __future__ import annotations

import pytest

from app.core.errors import SettingsError
from app.core.settings import Settings, load_settings


def line_of(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as raised:
        load_settings(environ)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_defaults_serve_the_demo_model_serially():
    settings = load_settings({})
    assert settings.model_name == "forklift-demo"
    assert settings.max_batch_size == 1
    assert settings.num_http_threads == 1 + 10 + 8


def test_other_variables_are_left_alone():
    assert load_settings({"PATH": "/bin", "MODEL": "x"}) == load_settings({})


def test_a_misspelt_name_stops_with_the_nearest_known_one():
    assert line_of({"FORKLIFT_MAX_QUEU": "1"}) == (
        "unknown setting FORKLIFT_MAX_QUEU; did you mean FORKLIFT_MAX_QUEUE?"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_QUEUE", "-1"), ("MAX_QUEUE", "many"), ("DEVICE", "tpu"), ("QUEUE_TIMEOUT_S", "0"), ("DTYPE", "int3")],
)
def test_a_bad_value_names_its_setting(name, value):
    assert line_of({f"FORKLIFT_{name}": value}).startswith(f"FORKLIFT_{name}: ")


def test_settings_that_contradict_each_other_are_refused():
    assert "DEFAULT_NEW_TOKENS" in line_of({"FORKLIFT_DEFAULT_NEW_TOKENS": "99", "FORKLIFT_MAX_NEW_TOKENS": "9"})
    assert "GPUS_PER_WORKER" in line_of({"FORKLIFT_GPUS_PER_WORKER": "2", "FORKLIFT_WORKERS_PER_GPU": "2"})


def test_an_empty_variable_is_as_good_as_none():
    assert load_settings({"FORKLIFT_MAX_QUEUE": ""}).max_queue == 10


def test_keys_are_split_and_never_shown():
    settings = load_settings({"FORKLIFT_API_KEYS": "first-key, second-key,"})
    assert settings.api_keys == ("first-key", "second-key")
    assert "first-key" not in repr(settings)


def test_the_model_is_named_after_its_folder():
    assert load_settings({"FORKLIFT_MODEL": "/models/codegen-350M-mono/"}).model_name == "codegen-350M-mono"
    assert load_settings({"FORKLIFT_MODEL": "Qwen/Qwen2-0.5B"}).model_name == "Qwen2-0.5B"


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).max_queue = 3


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
