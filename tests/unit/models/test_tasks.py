"""The task of a checkpoint follows from its config; what is not served stops the load by name."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.encoders.encoder_model import EncoderModel
from app.models.folder.sentence import SentenceForm
from app.models.folder.tasks import detect_task
from tests.tiny_models import write_sentence_files


def load(folder):
    return load_checkpoint(load_settings({"FORKLIFT_MODEL": str(folder)}), lambda _: None)


@pytest.fixture
def copy_of(model_folder, tmp_path):
    """A copy of a model's folder that a test may change."""
    return lambda family: shutil.copytree(model_folder(family), tmp_path / family)


BY_HEAD = ("entities", "answer")


@pytest.mark.parametrize(
    ("model_type", "architecture", "task"),
    [
        ("qwen2", "Qwen2ForCausalLM", "generate"),
        ("glm", "GlmForCausalLM", "generate"),
        ("gpt2", "GPT2LMHeadModel", "generate"),
        ("gpt2", "GPT2Model", "generate"),
        ("gpt2", None, "generate"),
        ("qwen2", "RemoteCodeForCausalLM", "generate"),
        ("bert", "BertForMaskedLM", "fill-mask"),
        ("bert", "BertForPreTraining", "fill-mask"),
        ("bert", None, "fill-mask"),
        ("bert", "RemoteBertForMaskedLM", "fill-mask"),
        ("bert", "BertLMHeadModel", "generate"),
        ("bert", "BertModel", "embeddings"),
        ("mpnet", "MPNetModel", "embeddings"),
        ("roberta", "RobertaForMaskedLM", "fill-mask"),
        ("bert", "BertForTokenClassification", "entities"),
        ("roberta", "RobertaForQuestionAnswering", "answer"),
    ],
)
def test_the_architecture_decides(model_type, architecture, task):
    config = AutoConfig.for_model(model_type)
    config.architectures = None if architecture is None else [architecture]
    assert detect_task(config, is_sentence_model=False) == task
    assert detect_task(config, is_sentence_model=True) == ("embeddings" if task not in BY_HEAD else task)


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["LABEL_0"], "rerank"),
        (["bad", "good"], "classify"),
        (["contradiction", "neutral", "ENTAILMENT"], "zero-shot"),
        (["entailment"], "rerank"),
    ],
)
@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "OwnForSequenceClassification"])
def test_the_labels_of_a_classifier_of_texts_tell_what_it_is_for(labels, task, architecture):
    config = AutoConfig.for_model("bert", id2label=dict(enumerate(labels)))
    config.label2id = {name: index for index, name in enumerate(labels)}
    config.architectures = [architecture]
    assert detect_task(config, is_sentence_model=False) == task


def test_a_head_that_is_not_served_is_refused_by_name():
    config = AutoConfig.for_model("bert")
    config.architectures = ["BertForNextSentencePrediction"]
    with pytest.raises(ModelLoadError, match="BertForNextSentencePrediction is not served: the tasks that are"):
        detect_task(config, is_sentence_model=False)


@pytest.mark.parametrize(
    ("family", "task"),
    [("qwen2", "generate"), ("bert", "fill-mask"), ("encoder", "embeddings"), ("sentence", "embeddings")],
)
def test_a_folder_is_loaded_for_its_task(model_folder, family, task):
    assert load(model_folder(family)).task == task


def test_a_sentence_models_files_say_how_its_vectors_are_made(model_folder):
    assert load(model_folder("sentence")).form == SentenceForm("cls", normalize=True, max_tokens=40)
    assert load(model_folder("encoder")).form is None


@pytest.mark.parametrize(("mode", "pooling"), [("mean_tokens", "mean"), ("lasttoken", "lasttoken")])
def test_pooling_is_the_one_that_is_flagged(copy_of, mode, pooling):
    folder = copy_of("sentence")
    write_sentence_files(folder, mode)
    assert load(folder).form.pooling == pooling
    (folder / "modules.json").unlink()
    assert load(folder).form == SentenceForm(pooling)


def test_pooling_can_be_named_as_newer_files_do(copy_of):
    folder = copy_of("sentence")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    assert load(folder).form.pooling == "mean"


def test_pooling_that_we_do_not_have_is_refused(copy_of):
    folder = copy_of("sentence")
    write_sentence_files(folder, "max_tokens")
    with pytest.raises(ModelLoadError, match="pooling max is not supported"):
        load(folder)


def test_a_step_that_we_do_not_have_is_refused(copy_of):
    folder = copy_of("sentence")
    write_sentence_files(folder, "mean_tokens", "Dense", "Normalize")
    with pytest.raises(ModelLoadError, match=r"modules\.json has a Dense step"):
        load(folder)


@pytest.mark.parametrize("family", ["bert", "sentence"])
def test_encoders_are_held_to_the_same_checks(copy_of, family):
    folder = copy_of(family)
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if "layer.1.output.dense.weight" in name)]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"layer\.1\.output\.dense\.weight"):
        load(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="is a pickle file"):
        load(folder)


def test_an_encoder_without_tokenizer_is_refused(copy_of):
    folder = copy_of("bert")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelLoadError, match="has no tokenizer"):
        load(folder)


def test_a_missing_pooler_is_no_fault(copy_of):
    folder = copy_of("encoder")
    weights = {name: one for name, one in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert load(folder).task == "embeddings"


def test_the_context_is_the_smallest_bound_that_is_known(model_folder):
    assert EncoderModel("tiny", load(model_folder("bert")), 4096).context_tokens == 64
    assert EncoderModel("tiny", load(model_folder("sentence")), 4096).context_tokens == 40
    assert EncoderModel("tiny", load(model_folder("bert")), 20).context_tokens == 20


def load_as(folder, task):
    settings = load_settings({"FORKLIFT_MODEL": str(folder)})
    return EncoderModel("tiny", load_checkpoint(settings, lambda _: None, task), 4096)


@pytest.mark.parametrize(
    ("task", "said"),
    [("rerank", "has one label, this one has 3"), ("zero-shot", 'a label whose name begins with "entail"')],
)
def test_labels_that_are_not_those_of_the_task_that_was_set_stop_the_load(model_folder, task, said):
    with pytest.raises(ModelLoadError, match=said):
        load_as(model_folder("bert-classify"), task)
    assert load_as(model_folder("bert-zero-shot"), "classify").task == "classify"


IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    ("file", "value", "activation"),
    [
        ("config.json", {}, "sigmoid"),
        ("config.json", {"sbert_ce_default_activation_function": IDENTITY}, "none"),
        ("config.json", {"sentence_transformers": {"version": "4.1.0", "activation_fn": IDENTITY}}, "none"),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder", "activation_fn": IDENTITY}, "none"),
    ],
)
def test_sentence_transformers_files_say_how_pairs_are_scored(copy_of, file, value, activation):
    folder = copy_of("bert-rerank")
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | value))
    (folder / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"}])
    )
    model = EncoderModel("tiny", load(folder), 4096)
    assert (model.task, model.labels.pair_activation) == ("rerank", activation)


def test_an_activation_that_we_do_not_have_stops_the_load(copy_of):
    folder = copy_of("bert-rerank")
    (folder / "config_sentence_transformers.json").write_text('{"activation_fn": "torch.nn.Tanh"}')
    with pytest.raises(ModelLoadError, match=r"torch\.nn\.Tanh is not supported"):
        load(folder)


@pytest.mark.parametrize("numbers", [{"entailment": "abc"}, {"entailment": [1]}, ["entailment"], None, 3])
@pytest.mark.parametrize("family", ["bert-entities", "bert-rerank", "bert-classify"])
def test_numbers_of_labels_that_are_none_are_not_read(copy_of, family, numbers):
    folder = copy_of(family)
    change_config(folder, label2id=numbers)
    checkpoint = load(folder)
    assert EncoderModel("m", checkpoint, 64).labels.entailment is None


def test_a_label_that_utf_8_cannot_carry_is_shown_as_far_as_it_can(copy_of):
    folder = copy_of("bert-classify")
    change_config(folder, id2label={"0": "\ud800a", "1": "b", "2": 3})
    assert EncoderModel("m", load(folder), 64).labels.names == ("?a", "b", "3")


def test_a_model_for_another_task_needs_no_labels(copy_of):
    folder = copy_of("bert")
    change_config(folder, id2label={}, label2id=["x"])
    assert EncoderModel("m", load(folder), 64).labels.names == ()


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
