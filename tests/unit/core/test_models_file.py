"""The file behind MODELS: what it may say, and the one line for each way of being wrong."""

from __future__ import annotations

import os

import pytest

from app.core.errors import SettingsError
from app.core.settings import Settings, load_settings

EXAMPLE = """
[codegen]
path = "/models/codegen-350M-mono"
[qwen]
path = "./Qwen2-0.5B-Instruct"
dtype = "bfloat16"
max_batch_size = 4
[bert]
path = "/models/bert-base-uncased"
task = "fill-mask"
load = "on_demand"
idle_unload_s = 60
"""


@pytest.fixture
def read(tmp_path):
    def read(text: str, **environ: str) -> Settings:
        file = tmp_path / "models.toml"
        file.write_text(text, encoding="utf-8")
        return load_settings({"FORKLIFT_MODELS": str(file), **environ})

    return read


@pytest.fixture
def line_of(read, tmp_path):
    """The one line that a file stops the start with, without the folder of the test."""

    def line_of(text: str, **environ: str) -> str:
        with pytest.raises(SettingsError) as raised:
            read(text, **environ)
        assert "\n" not in str(raised.value)
        return str(raised.value).replace(str(tmp_path), "")

    return line_of


def test_the_models_keep_the_order_of_the_file(read):
    assert [plan.name for plan in read(EXAMPLE).plans] == ["codegen", "qwen", "bert"]


def test_each_model_has_settings_of_its_own(read, tmp_path):
    codegen, qwen, bert = read(EXAMPLE, FORKLIFT_MAX_QUEUE="3").plans
    assert (codegen.settings.model, codegen.settings.dtype) == ("/models/codegen-350M-mono", "auto")
    assert (qwen.settings.model, qwen.settings.dtype) == (str(tmp_path / "Qwen2-0.5B-Instruct"), "bfloat16")
    assert (codegen.load, codegen.task) == ("resident", None)
    assert (bert.load, bert.task, bert.idle_unload_s) == ("on_demand", "fill-mask", 60)
    assert {plan.settings.max_queue for plan in (codegen, qwen, bert)} == {3}
    assert [plan.settings.model_name for plan in (codegen, qwen, bert)] == ["codegen", "qwen", "bert"]


def test_the_environment_gives_the_defaults_of_all_models(read):
    settings = read(EXAMPLE, FORKLIFT_DTYPE="float32", FORKLIFT_MAX_BATCH_SIZE="2")
    assert [plan.settings.dtype for plan in settings.plans] == ["float32", "bfloat16", "float32"]
    assert settings.max_running == 2 + 4 + 2
    assert settings.num_http_threads == 8 + 10 + 8


def test_one_model_without_a_file_is_a_plan_too():
    settings = load_settings({"FORKLIFT_MODEL": "/models/gpt2", "FORKLIFT_MAX_BATCH_SIZE": "5"})
    [plan] = settings.plans
    assert (plan.name, plan.settings, plan.load) == ("gpt2", settings, "resident")
    assert settings.max_running == 5


@pytest.mark.parametrize("name", ["MODEL", "MODEL_NAME", "REVISION", "TRUST_REMOTE_CODE", "CHAT_TEMPLATE"])
def test_what_is_said_of_one_model_contradicts_a_file_of_several(line_of, name):
    line = line_of(EXAMPLE, **{f"FORKLIFT_{name}": "true"})
    assert line == f"{name} is for one model; with MODELS say it in the file"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "/models.toml: has no tables; each model is one, [name] with path = ..."),
        ("# nothing\n", "/models.toml: has no tables; each model is one, [name] with path = ..."),
        ("[a]\npath = '/m'\n[a]\npath = '/n'\n", "Cannot declare ('a',) twice"),
        ("[a\n", "/models.toml is not valid TOML"),
        ("a = 1", "/models.toml: a stands outside of a table"),
        ("[a]\ndtype = 'auto'", "/models.toml: [a] path: Field required"),
        ("[a]\npath = ''", "/models.toml: [a] path: "),
        ("[a]\npath = 3", "/models.toml: [a] path: "),
        ("[a]\nmodel = '/m'", "[a] unknown key model; did you mean path?"),
        ("[a]\npath = '/m'\nidle_unload = 3", "[a] unknown key idle_unload; did you mean idle_unload_s?"),
        ("[a]\npath = '/m'\nmax_queue = 3", "[a] unknown key max_queue"),
        ("[a]\npath = '/m'\nown_settings = {}", "[a] unknown key own_settings"),
        ("[a]\npath = '/m'\ndtype = 'int3'", "/models.toml: [a] dtype: "),
        ("[a]\npath = '/m'\nmax_batch_size = 0", "/models.toml: [a] max_batch_size: "),
        ("[a]\npath = '/m'\nmax_batch_size = true", "/models.toml: [a] max_batch_size: "),
        ("[a]\npath = '/m'\nmax_batch_size = '2'", "/models.toml: [a] max_batch_size: "),
        ("[a]\npath = '/m'\ntask = 'summarize'", "/models.toml: [a] task: "),
        ("[a]\npath = '/m'\nload = 'lazy'", "/models.toml: [a] load: "),
        ("[a]\npath = '/m'\nidle_unload_s = 3", '[a] idle_unload_s: only with load = "on_demand"'),
        ("[a]\npath = '/m'\nload = 'on_demand'\nidle_unload_s = -1", "[a] idle_unload_s: "),
        ("[a]\npath = '/m'\nload = 'on_demand'\nidle_unload_s = inf", "[a] idle_unload_s: "),
        ("[a]\npath = '/m'\nchat_template = '/nowhere'", "[a] chat_template: the file /nowhere does not exist"),
        ("['']\npath = '/m'", "'' cannot be the name of a model"),
        ('["a\\nb"]\npath = "/m"', "cannot be the name of a model"),
        (
            "[a]\npath = '/m'\nmax_new_tokens = 5\ndefault_new_tokens = 6",
            "[a] DEFAULT_NEW_TOKENS is above MAX_NEW_TOKENS",
        ),
    ],
)
def test_a_wrong_file_is_one_clear_line(line_of, text, line):
    assert line in line_of(text)


def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path):
    for file, reason in ((tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=f"cannot read {file}: {reason}"):
            load_settings({"FORKLIFT_MODELS": str(file)})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        load_settings({"FORKLIFT_MODELS": str(tmp_path / "bytes.toml")})


def test_a_name_that_toml_takes_apart_is_to_be_quoted(line_of):
    assert line_of("[qwen2.5]\npath = '/m'").endswith(
        'unknown key 5, a table; for a model called qwen2.5 quote it: ["qwen2.5"]'
    )
    assert line_of("[b]\npath = '/m'\n[org/m]\npath = '/m'").endswith('quote the name: ["org/m"]')
    assert line_of("[größe]\npath = '/m'").endswith('quote the name: ["größe"]')


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_the_file(read):
    [plan] = read("\ufeff[a]\r\npath = '/m'\r\n").plans
    assert (plan.name, plan.settings.model) == ("a", "/m")


def test_names_that_differ_by_case_only_are_refused(line_of):
    assert "[a] and [A] differ by case only" in line_of("[a]\npath = '/m'\n[A]\npath = '/n'")


def test_a_default_follows_the_bound_of_its_own_table(read):
    small, large = read("[a]\npath = '/m'\nmax_new_tokens = 64\n[b]\npath = '/n'").plans
    assert (small.settings.default_new_tokens, large.settings.default_new_tokens) == (64, 128)


def test_a_pipe_in_place_of_the_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "models.toml")
    with pytest.raises(SettingsError, match="it is a named pipe"):
        load_settings({"FORKLIFT_MODELS": str(tmp_path / "models.toml")})


def test_a_file_that_is_nested_too_deeply_is_one_line(line_of):
    assert "nested too deeply" in line_of("a = " + "[" * 100_000)
