"""Code beside the weights: asked for where it is needed, and only there."""

from __future__ import annotations

import json

import pytest

from app.core.errors import ModelLoadError
from app.models.folder.remote_code import check_code

OWN = {"AutoConfig": "configuration_x.XConfig", "AutoModelForCausalLM": "org/repo--modeling_x.XModel"}


@pytest.fixture
def folder(tmp_path):
    def make(config: object) -> str:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return str(tmp_path)

    return make


def test_a_model_of_its_own_code_is_refused_with_the_files_to_read(folder):
    source = folder({"model_type": "x-own", "auto_map": OWN})
    with pytest.raises(ModelLoadError, match=r"its own \(configuration_x.py, modeling_x.py\): read it, then allow it"):
        check_code(source, is_trusted=False)
    check_code(source, is_trusted=True)


@pytest.mark.parametrize("config", [{"model_type": "llama", "auto_map": OWN}, {"model_type": "x-own"}, {}])
def test_what_transformers_has_needs_no_trust(folder, config):
    check_code(folder(config), is_trusted=False)


def test_a_hub_id_is_left_to_transformers(tmp_path):
    check_code(str(tmp_path / "none"), is_trusted=False)


@pytest.mark.parametrize("config", ["{", "[]", '{"auto_map": 3}'])
def test_a_broken_config_is_one_line(folder, config):
    with pytest.raises(ModelLoadError, match=r"config\.json is not a model's configuration"):
        check_code(folder(config), is_trusted=False)
