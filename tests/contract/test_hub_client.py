"""``huggingface_hub.InferenceClient`` against the routes of encoders: its calls, its types, as its users write them."""

from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from app.http.application.factory import create_app
from tests.contract.loopback import serving
from tests.contract.real import RealWorld
from tests.tiny_seq2seq import T5_PARAMS

TEXT = "def load(folder)"
TASKS = ("classify", "zero-shot", "entities", "answer")


@pytest.fixture(scope="module")
def url(model_folder, tmp_path_factory):
    """A server with a model for each task."""
    folders = {task: model_folder(f"bert-{task}") for task in TASKS}
    folders |= {"fill-mask": model_folder("bert"), "embeddings": model_folder("sentence")}
    folders |= {"generate": model_folder("llama"), "seq2seq": model_folder("t5")}
    file = tmp_path_factory.mktemp("hub") / "models.toml"
    file.write_text("\n".join(f'["{task}"]\npath = "{folder}"\n' for task, folder in folders.items()))
    world = RealWorld(models=file)
    with serving(create_app(world.context)) as url:
        yield url
    world.stop()


@pytest.fixture
def ask(url):
    """A client of one route, as its users make it."""
    return lambda route: InferenceClient(model=f"{url}{route}", token="any", timeout=60)


def near(score):
    return pytest.approx(score, abs=1e-5)


@pytest.mark.slow
def test_texts_are_classified(ask, model_folder):
    found = ask("/classify").text_classification(TEXT)
    expected = pipeline("text-classification", model=str(model_folder("bert-classify")))(TEXT, top_k=None)
    assert [one.label for one in found] == [one["label"] for one in expected]
    assert [one.score for one in found] == near([one["score"] for one in expected])
    assert len(ask("/classify").text_classification(TEXT, top_k=1, function_to_apply="none")) == 1


def test_labels_of_the_request_are_scored(ask, model_folder):
    labels = ["load", "folder", "model"]
    found = ask("/zero-shot").zero_shot_classification(TEXT, labels, multi_label=True, hypothesis_template="It is {}.")
    expected = pipeline("zero-shot-classification", model=str(model_folder("bert-zero-shot")))(
        TEXT, labels, multi_label=True, hypothesis_template="It is {}."
    )
    assert [one.label for one in found] == expected["labels"]
    assert [one.score for one in found] == near(expected["scores"])


def test_entities_are_found(ask, model_folder):
    found = ask("/entities").token_classification(TEXT, aggregation_strategy="simple", ignore_labels=["PER"])
    expected = pipeline("token-classification", model=str(model_folder("bert-entities")))(
        TEXT, aggregation_strategy="simple", ignore_labels=["PER"]
    )
    assert [(one.entity_group, one.start, one.end) for one in found] == [
        (one["entity_group"], one["start"], one["end"]) for one in expected
    ]


def test_questions_are_answered(ask):
    found = ask("/answer").question_answering(question="load", context=TEXT)
    assert TEXT[found.start : found.end] == found.answer
    assert len(ask("/answer").question_answering(question="load", context=TEXT, top_k=2, max_answer_len=3)) == 2


def test_masks_are_filled_and_vectors_made(ask):
    assert len(ask("/fill-mask").fill_mask("def [MASK](x)", top_k=3)) == 3
    vectors = ask("/embed").feature_extraction(TEXT, normalize=True, truncate=True)
    assert vectors.shape == (1, 64) and np.linalg.norm(vectors) == near(1)


def test_sentences_are_compared(ask):
    found = ask("/similarity").sentence_similarity(TEXT, other_sentences=[TEXT, "a"])
    assert found[0] == near(1) and found[1] < 1


def test_texts_are_translated_and_summarized(ask, model_folder):
    folder = model_folder("t5")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)

    def generated(task, **changes):
        told = {**T5_PARAMS[task], **changes}
        [ids] = model.generate(**tokenizer(told.pop("prefix") + TEXT, return_tensors="pt"), **told)
        return tokenizer.decode(ids, skip_special_tokens=True)

    changes = {"num_beams": 2, "max_length": 9}
    found = ask("/translate").translation(TEXT, src_lang="en", tgt_lang="de", generate_parameters=changes)
    assert found.translation_text == generated("translation_en_to_de", **changes)
    found = ask("/translate").translation(TEXT, src_lang="en", tgt_lang="fr")
    assert found.translation_text == generated("translation_en_to_fr")
    found = ask("/summarize").summarization(TEXT, truncation="do_not_truncate")
    assert found.summary_text == generated("summarization") != ""
    with pytest.raises(HfHubHTTPError, match="tgt_lang"):
        ask("/translate").translation(TEXT, src_lang="en", tgt_lang="xx")


@pytest.mark.parametrize("path", ["", "/generate"])
def test_texts_are_continued_whole_and_streamed(ask, path):
    client = ask(path)
    whole = client.text_generation(TEXT, max_new_tokens=6, details=True, decoder_input_details=True)
    assert (whole.details.generated_tokens, whole.details.finish_reason) == (6, "length")
    assert whole.generated_text == client.text_generation(TEXT, max_new_tokens=6)
    if not path:
        *pieces, last = client.text_generation(TEXT, max_new_tokens=6, details=True, stream=True)
        assert last.generated_text == whole.generated_text and last.details.generated_tokens == 6
        assert len(pieces) == 5
    with pytest.raises(ValidationError, match="watermark"):
        client.text_generation(TEXT, watermark=True)


def test_a_parameter_that_is_not_followed_is_refused_by_name(ask):
    with pytest.raises(HfHubHTTPError, match="align_to_words") as refused:
        ask("/answer").question_answering(question="load", context=TEXT, align_to_words=True)
    assert refused.value.response.status_code == 400
    with pytest.raises(HfHubHTTPError, match="targets"):
        ask("/fill-mask").fill_mask("def [MASK](x)", targets=["a"])
    with pytest.raises(HfHubHTTPError, match="inputs: "):
        ask("/classify").text_classification("model " * 80)
