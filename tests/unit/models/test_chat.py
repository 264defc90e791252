"""Chat without a template in the model's files: ChatGLM-6B's rounds, or a file of the operator's."""

from __future__ import annotations

import shutil

import pytest

from app.core.errors import ModelLoadError, SettingsError, UnsupportedParameterError
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.text_model import TextModel
from app.models.tokens.chat_prompts import rounds_prompt

FIRST = {"role": "user", "content": "\u4f60\u597d"}
ANSWERED = [FIRST, {"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Who?"}]


def load(folder, template=None) -> TextModel:
    environ = {"FORKLIFT_MODEL": str(folder)} | ({"FORKLIFT_CHAT_TEMPLATE": str(template)} if template else {})
    settings = load_settings(environ)
    checkpoint = load_checkpoint(settings, lambda _: None)
    return TextModel("tiny", checkpoint, settings.max_context_tokens, settings.chat_template)


def without_template(model_folder, family, tmp_path):
    folder = shutil.copytree(model_folder(family), tmp_path / family)
    for path in folder.glob("chat_template*"):
        path.unlink()
    return folder


def test_rounds_count_from_zero_and_the_last_one_is_open():
    assert rounds_prompt(ANSWERED) == (
        "[Round 0]\n\u95ee\uff1a\u4f60\u597d\n\u7b54\uff1aHi!\n[Round 1]\n\u95ee\uff1aWho?\n\u7b54\uff1a"
    )


def test_a_first_question_stands_alone_as_in_chatglms_own_code():
    assert rounds_prompt([FIRST]) == "\u4f60\u597d"


def test_a_system_message_stands_in_front():
    assert rounds_prompt([{"role": "system", "content": "Be brief."}, *ANSWERED]).startswith("Be brief.\n[Round 0]\n")


def test_a_glm_without_template_talks_in_rounds(model_folder, tmp_path):
    model = load(without_template(model_folder, "glm", tmp_path))
    assert model.has_chat_template
    assert model.encode_chat(ANSWERED) == model.encode(rounds_prompt(ANSWERED))


def test_a_glm_with_a_template_uses_it(model_folder):
    model = load(model_folder("glm"))
    assert "<|im_start|>" in model.tokenizer.decode(model.encode_chat(ANSWERED))


def test_other_models_without_a_template_do_not_chat(model_folder, tmp_path):
    model = load(without_template(model_folder, "qwen2", tmp_path))
    assert not model.has_chat_template
    with pytest.raises(UnsupportedParameterError):
        model.encode_chat(ANSWERED)


@pytest.mark.parametrize("family", ["qwen2", "glm"])
def test_a_template_file_overrides_what_the_model_has(model_folder, tmp_path, family):
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:")
    model = load(without_template(model_folder, family, tmp_path), template)
    assert model.tokenizer.decode(model.encode_chat([FIRST])) == "user: \u4f60\u597d\nassistant:"


def test_a_missing_template_file_stops_the_start():
    with pytest.raises(SettingsError, match=r"^FORKLIFT_CHAT_TEMPLATE: the file /nowhere does not exist$"):
        load_settings({"FORKLIFT_CHAT_TEMPLATE": "/nowhere"})


def test_a_template_file_that_is_no_template_stops_the_load(model_folder, tmp_path):
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}")
    with pytest.raises(ModelLoadError, match="is not a Jinja template"):
        load(model_folder("qwen2"), template)
