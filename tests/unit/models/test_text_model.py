"""Text to ids and back, limits and defaults of a loaded model."""

from __future__ import annotations

import json
import shutil
import threading
import time

import pytest

from app.core.errors import ContextLengthError, InvalidParameterError, RequestTimeoutError, UnsupportedParameterError
from app.core.patience import patient_until
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.text_model import TextModel


def load(folder, **environ) -> TextModel:
    settings = load_settings({"FORKLIFT_MODEL": str(folder), **environ})
    return TextModel(settings.model_name, load_checkpoint(settings, lambda _: None), settings.max_context_tokens)


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder("qwen2"))


def test_text_makes_the_round_trip(model):
    text = "def f():\n\treturn 'é 你好 🎉 \u2028 \x00'"
    assert model.decode(model.encode(text)) == text


def test_a_conversation_ends_where_the_answer_begins(model):
    ids = model.encode_chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    rendered = model.tokenizer.decode(ids)
    assert rendered == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_model_without_a_chat_template_refuses_to_chat(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    with pytest.raises(UnsupportedParameterError):
        model.encode_chat([{"role": "user", "content": "Hi"}])


def test_a_template_that_refuses_the_messages_is_the_callers_error(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidParameterError, match="roles must alternate"):
        model.encode_chat([{"role": "user", "content": "Hi"}])


def test_a_token_outside_the_embedding_is_refused(model, monkeypatch):
    monkeypatch.setattr(model, "vocab_size", 10)
    with pytest.raises(InvalidParameterError):
        model.encode("hello")


def test_the_context_is_the_smaller_of_the_models_and_the_settings(model_folder):
    assert load(model_folder("qwen2")).context_tokens == 1024
    assert load(model_folder("qwen2"), FORKLIFT_MAX_CONTEXT_TOKENS="100").context_tokens == 100
    assert load(model_folder("gpt2")).context_tokens == 1024


def test_defaults_are_greedy_where_the_generation_config_is_silent(model):
    assert (model.defaults.temperature, model.defaults.top_p, model.defaults.top_k) == (0.0, 1.0, 0)


def test_defaults_come_from_the_generation_config(model_folder, tmp_path):
    folder = shutil.copytree(model_folder("qwen2"), tmp_path / "model")
    config = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [0, 3]}))
    model = load(folder)
    assert (model.defaults.temperature, model.defaults.top_p, model.defaults.top_k) == (0.7, 0.8, 20)
    assert model.defaults.repetition_penalty == 1.05
    assert model.eos_ids == {0, 3}


def test_many_threads_encode_at_once(model):
    texts = [f"def f{i}(): return {i}" * 20 for i in range(40)]
    alone = [model.encode(text) for text in texts]
    found: dict[int, list[int]] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: model.encode(texts[i])})) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(40)] == alone


@pytest.mark.parametrize("text", ["a " * 400_000, "x" * 1_000_000, "\u00e9\n" * 300_000])
def test_a_text_that_never_fits_is_refused_before_it_is_tokenized_whole(model, monkeypatch, text):
    lengths = []
    call = type(model.tokenizer).__call__

    def counted(self, text, **options):
        lengths.append(len(text))
        return call(self, text, **options)

    monkeypatch.setattr(type(model.tokenizer), "__call__", counted)
    for encode in (
        lambda: model.encode(text),
        lambda: model.encode_chat([{"role": "user", "content": text}]),
        lambda: model.encode_infill([text, "b"], []),
        lambda: model.encode_infill(["a", "b"], [], [("f.py", text)]),
    ):
        lengths.clear()
        with pytest.raises(ContextLengthError):
            encode()
        assert sum(lengths) < 150_000


def test_a_long_text_of_few_tokens_is_not_refused(model_folder):
    model = load(model_folder("qwen2"))
    text = "<|im_start|>" * 900
    assert len(text) > 4 * 1024
    assert len(model.encode(text)) == 900


def test_waiting_for_the_tokenizer_is_part_of_the_requests_time(model):
    with model._lock, patient_until(time.monotonic() + 0.1), pytest.raises(RequestTimeoutError):
        model.encode("a")
    with pytest.raises(ContextLengthError):
        model.detokenize([9] * (4 * model.context_tokens + 1))
