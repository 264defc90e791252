"""Chat without a template in the model's files: ChatGLM-6B's rounds, or a file of the operator's."""

from __future__ import annotations

import shutil

import pytest

from app.core.errors import InvalidParameterError, ModelLoadError, SettingsError, UnsupportedParameterError
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.text_model import TextModel
from app.models.tokens.chat_prompts import rounds_prompt
from app.models.tokens.model_forms import ModelForms

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


STRICT = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('Only the first message may be a system message') }}{% endif %}"
    "{% if not loop.first and m.role == messages[loop.index0 - 1].role %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m.name or m.role }}{% if m.tool_call_id %}#{{ m.tool_call_id }}{% endif %}{{ '\\n' }}"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def strict(model_folder):
    model = load(model_folder("qwen2"))
    model.tokenizer.chat_template = STRICT
    return model


def said(*messages: tuple[str, str], **more: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content, **more} for role, content in messages]


def written(model, messages, **arguments) -> str:
    return model.tokenizer.decode(model.encode_chat(messages, **arguments))


def test_a_prompt_may_end_within_the_last_message_or_behind_it(strict):
    messages = said(("user", "Count."), ("assistant", "One, "))
    start = "<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\nOne,"
    assert written(strict, messages) == f"{start}<|im_end|>\n<|im_start|>assistant\n"
    assert written(strict, messages, add_generation_prompt=False) == f"{start}<|im_end|>\n"
    # A template that trims leaves no white space to go on behind.
    assert written(strict, messages, add_generation_prompt=False, continue_final_message=True) == start


def test_a_template_that_drops_the_last_message_cannot_go_on_with_it(strict):
    strict.tokenizer.chat_template = "{{ messages[0].content }}"
    try:
        with pytest.raises(InvalidParameterError, match="final message does not appear"):
            strict.encode_chat(said(("user", "a"), ("assistant", "b")), continue_final_message=True)
    finally:
        strict.tokenizer.chat_template = STRICT


@pytest.mark.parametrize(
    ("roles", "message"),
    [(("user", "user"), "must alternate"), (("user", "system"), "Only the first message may be a system message")],
)
def test_roles_that_a_template_refuses_are_refused_in_its_words(strict, roles, message):
    with pytest.raises(InvalidParameterError, match=message):
        strict.encode_chat(said(*((role, "x") for role in roles)))


def test_roles_names_and_ids_reach_the_template_as_they_are(strict):
    text = written(strict, said(("system", "S"), ("user", "a"), ("tool", "b"), name="Ann", tool_call_id="c1"))
    assert text.count("<|im_start|>Ann#c1") == 3
    strict.tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {% endfor %}"
    try:
        assert written(strict, said(("user", "a"), ("user", "b"), ("assistant", "c"), ("tool", "d"))).split() == [
            "user",
            "user",
            "assistant",
            "tool",
        ]
    finally:
        strict.tokenizer.chat_template = STRICT


@pytest.mark.parametrize("name", ["add_generation_prompt", "continue_final_message"])
def test_a_model_that_talks_in_rounds_has_no_other_ends(model_folder, tmp_path, name):
    model = load(without_template(model_folder, "glm", tmp_path))
    with pytest.raises(UnsupportedParameterError) as refused:
        model.encode_chat(said(("user", "a")), **{name: True})
    assert refused.value.param == name


def test_an_answer_that_is_gone_on_with_thinks_only_where_its_start_does(strict):
    strict.forms = ModelForms(strict.tokenizer, reasoning="think")
    ids = strict.encode("x")
    assert strict.forms.of_request(None, ids, "<think>\nHm, so").is_thinking
    assert strict.forms.reasoning_span(ids, "<think>\nHm, so").is_open
    for start in ("One, ", "<think>Hm.</think> One, "):
        assert strict.forms.of_request(None, ids, start).is_plain
        assert strict.forms.reasoning_span(ids, start) is None
    assert not strict.forms.of_request(None, ids).is_plain
