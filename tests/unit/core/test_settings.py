"""Settings come from the environment, once, and a bad one is one clear line."""

from __future__ import annotations

import os

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


@pytest.mark.parametrize("value", ["", ",", " ", " , ,", "\r"])
def test_keys_that_are_set_without_a_key_stop_the_start(value):
    assert line_of({"FORKLIFT_API_KEYS": value}).startswith("FORKLIFT_API_KEYS: is set and ")


def test_carriage_returns_of_an_environment_file_are_no_part_of_a_value():
    settings = load_settings({"FORKLIFT_MODEL_NAME": "mine\r", "FORKLIFT_MAX_QUEUE": "7\r", "FORKLIFT_REVISION": "\r"})
    assert (settings.model_name, settings.max_queue, settings.revision) == ("mine", 7, None)


def test_a_refusal_shows_the_value_but_never_a_key():
    assert line_of({"FORKLIFT_MAX_QUEUE": '"7"'}).endswith("""not '"7"': leave the quotes out""")
    assert "\\x1b" in line_of({"FORKLIFT_DTYPE": "\x1b[31m"})
    assert len(line_of({"FORKLIFT_DTYPE": "x" * 100_000})) < 300


def test_a_blank_value_is_a_mistake_and_an_empty_one_is_none():
    assert line_of({"FORKLIFT_TLS_CERT": " "}).startswith("FORKLIFT_TLS_CERT: is set and blank")
    assert load_settings({"FORKLIFT_TLS_CERT": ""}).tls_cert is None


def test_a_default_that_nobody_set_follows_a_lower_bound():
    assert load_settings({"FORKLIFT_MAX_NEW_TOKENS": "64"}).default_new_tokens == 64


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("localhost", ("localhost:5000",)),
        ("127.0.0.1", ("127.0.0.1:5000",)),
        ("127.0.0.1:", ("127.0.0.1:5000",)),
        (":8080", ("0.0.0.0:8080",)),
        ("127.0.0.1:5077, [::1]:5077", ("127.0.0.1:5077", "[::1]:5077")),
        ("[::]", ("[::]:5000",)),
        ("::1", ("[::1]:5000",)),
        ("unix:/run/f.sock", ("unix:/run/f.sock",)),
        ("unix:///run/f.sock,localhost", ("unix:/run/f.sock", "localhost:5000")),
        ("fd://3", ("fd://3",)),
    ],
)
def test_each_form_of_an_address_is_taken(value, addresses):
    assert load_settings({"FORKLIFT_BIND": value}).addresses == addresses


@pytest.mark.parametrize(
    "value",
    [
        *("abc", "70000", "5000", "127.0.0.1:70000", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:٥", "[::1", "[::1]5"),
        *(
            "unix:",
            "fd://x",
            "http://127.0.0.1:5000",
            "127.0.0.1,",
            ",",
            "localhost,localhost:5000",
            "a b",
            "1.2.3.4.5",
        ),
        *("unix:/" + "x" * 200, "127.0.0.1:" + "9" * 10_000),
    ],
)
def test_what_is_no_address_is_one_line_with_the_settings_name(value):
    assert line_of({"FORKLIFT_BIND": value}).startswith("FORKLIFT_BIND: ")


def test_the_model_of_the_working_folder_is_named_after_it(tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path / "my-model")
    assert load_settings({"FORKLIFT_MODEL": "."}).model_name == "my-model"
    assert load_settings({"FORKLIFT_MODEL": "./"}).model_name == "my-model"
    assert load_settings({"FORKLIFT_MODEL": ".."}).model_name == tmp_path.name


def test_a_name_with_control_characters_is_refused():
    assert line_of({"FORKLIFT_MODEL": "/models/a\x1b[31m"}) == (
        "FORKLIFT_MODEL_NAME: '" + r"a\x1b[31m" + "' cannot be the name of a model"
    )


def test_a_path_prefix_is_a_path():
    assert load_settings({"FORKLIFT_PATH_PREFIX": "/llm/"}).path_prefix == "/llm"
    assert load_settings({"SCRIPT_NAME": "/llm"}).path_prefix == "/llm"
    assert load_settings({"SCRIPT_NAME": "/llm", "FORKLIFT_PATH_PREFIX": "/a/b"}).path_prefix == "/a/b"
    for value in ("llm", "/a b", "/a?b", "//a", "http://x/y"):
        assert line_of({"FORKLIFT_PATH_PREFIX": value}).startswith("FORKLIFT_PATH_PREFIX: ")


def test_a_pipe_or_a_folder_in_place_of_a_file_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("CHAT_TEMPLATE", "MODELS"):
        assert "named pipe" in line_of({f"FORKLIFT_{name}": str(tmp_path / "pipe")})
        assert "Is a directory" in line_of({f"FORKLIFT_{name}": str(tmp_path)})
    (tmp_path / "link").symlink_to("/nowhere/at/all")
    assert "a link to /nowhere/at/all" in line_of({"FORKLIFT_MODELS": str(tmp_path / "link")})


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:0", "unix:/tmp/x", "127.0.0.1:1,127.0.0.1:2", "grpc://a:1"])
def test_the_grpc_port_is_one_address_with_a_port(text):
    with pytest.raises(SettingsError, match="FORKLIFT_GRPC_BIND"):
        load_settings({"FORKLIFT_GRPC_BIND": text})


def test_the_grpc_port_is_written_as_bind_is():
    assert load_settings({"FORKLIFT_GRPC_BIND": " :50051"}).grpc_bind == "0.0.0.0:50051"
    assert load_settings({}).grpc_bind == ""
