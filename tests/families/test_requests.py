"""The source documents' own requests, each on a model of the family that it was written for."""

from __future__ import annotations

import json
import re

import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoModel, AutoTokenizer, pipeline

from tests.families import reference
from tests.families.folders import END, FIM, MASKS

CODE = "#print hello world function"
CUTS = ["\n\n^#", "^'''", "\n\n\n"]


class TestCodeGen:
    def test_post_data_answers_the_completed_code_as_a_json_string(self, serve, family_folder):
        world = serve("codegen")
        answer = world.client().post("/", json={"data": CODE, "max_new_tokens": 20})
        expected = reference.greedy(family_folder("codegen"), world.inference.model.encode(CODE), 20)
        assert answer.get_json() == CODE + reference.text(family_folder("codegen"), expected)

    def test_put_with_a_form_field_answers_the_same(self, serve):
        client = serve("codegen", default_new_tokens=20).client()
        assert client.put("/", data={"data": CODE}).get_json() == client.post("/", json={"data": CODE}).get_json()

    def test_patterns_cut_as_the_familys_own_tokenizer_does(self, serve, family_folder):
        """The completion is made to hold what the patterns look for: random weights write no comments."""
        world = serve("codegen")
        written = "def f():\n    pass\n\n# again\nx"
        body = {"data": CODE, "max_new_tokens": 60, "regex": re.escape(written), "truncate_before_pattern": CUTS}
        cut = world.client().post("/", json=body).get_json()
        _, tokenizer = reference.load(family_folder("codegen"))
        ids = world.inference.model.encode(written)
        assert cut == CODE + tokenizer.decode(ids, truncate_before_pattern=CUTS) == CODE + "def f():\n    pass"
        whole = world.client().post("/", json={**body, "truncate_before_pattern": []}).get_json()
        assert whole == CODE + written


class TestInCoder:
    def test_it_extends_code_with_the_documents_sampling(self, serve):
        body = {"prompt": "def count_words(filename):", "temperature": 0.2, "top_p": 0.95, "max_new_tokens": 16}
        client = serve("incoder").client()
        answers = [client.post("/complete", json={**body, "seed": 1}).get_json() for _ in range(2)]
        assert answers[0]["completion"] == answers[1]["completion"] != ""

    def test_it_fills_holes_between_mask_tokens(self, serve, family_folder):
        parts = ['def count_words(filename):\n    """', '"""\n    return ', "\n"]
        world = serve("incoder", dtype="float32")
        body = {"parts": parts, "max_new_tokens": 8, "temperature": 0}
        answer = world.client().post("/infill", json=body).get_json()
        assert len(answer["infills"]) == 2
        _, tokenizer = reference.load(family_folder("incoder"))
        prompt = tokenizer(f"{parts[0]}<|mask:0|>{parts[1]}<|mask:1|>{parts[2]}<|mask:2|><|mask:0|>")["input_ids"]
        ends = tokenizer.convert_tokens_to_ids([*MASKS, END])
        expected = reference.greedy(family_folder("incoder"), prompt, 8, eos_token_id=ends)
        assert answer["infills"][0] == reference.text(family_folder("incoder"), expected)
        first, second = answer["infills"]
        assert answer["text"] == parts[0] + first + parts[1] + second + parts[2]

    def test_the_space_of_from_dot_stays(self, serve, family_folder):
        """Its tokenizer asks for the clean-up that removes it."""
        written = "from . import x , y"
        answer = (
            serve("incoder")
            .client()
            .post("/complete", json={"prompt": "# ", "regex": re.escape(written), "max_new_tokens": 40})
        )
        assert answer.get_json()["completion"] == written
        _, tokenizer = reference.load(family_folder("incoder"))
        assert tokenizer.clean_up_tokenization_spaces

    def test_its_float16_works_on_the_cpu_and_is_said_to_be_slow(self, serve):
        with capture_logs() as lines:
            world = serve("incoder")
        assert [line["dtype"] for line in lines if line["event"] == "slow_dtype"] == ["float16"]
        assert world.client().get("/v1/capabilities").get_json()["data"][0]["dtype"] == "float16"
        answer = world.client().post("/complete", json={"prompt": "def f", "max_new_tokens": 12, "ignore_eos": True})
        assert answer.get_json()["usage"]["completion_tokens"] == 12

    def test_its_padding_token_is_its_own(self, serve, family_folder):
        model = serve("incoder").inference.model
        assert model.tokenizer.convert_ids_to_tokens(model.pad_id) == "<pad>"


class TestQwen2:
    def test_a_prompt_answers_response_status_and_time(self, serve):
        body = serve("qwen2-instruct").client().post("/", json={"prompt": "Hello", "max_new_tokens": 8}).get_json()
        assert (set(body), body["status"]) == ({"response", "status", "time"}, 200)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", body["time"])

    @pytest.mark.parametrize("system", [None, "Be brief."])
    def test_its_template_makes_the_prompt(self, serve, family_folder, system):
        """Without a system message the template adds its own."""
        world = serve("qwen2-instruct", dtype="float32", **({"system_prompt": system} if system else {}))
        messages = [{"role": "system", "content": system}] if system else []
        _, tokenizer = reference.load(family_folder("qwen2-instruct"))
        prompt = tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": "Hello"}], add_generation_prompt=True, return_dict=False
        )
        expected = reference.greedy(family_folder("qwen2-instruct"), prompt, 16)
        body = {"prompt": "Hello", "max_new_tokens": 16, "temperature": 0, "repetition_penalty": 1.0}
        answer = world.client().post("/chat", json=body).get_json()
        assert answer["response"] == reference.text(family_folder("qwen2-instruct"), expected)
        assert answer["usage"]["prompt_tokens"] == len(prompt)

    def test_a_stream_is_json_events_that_keep_line_breaks(self, serve):
        body = {"prompt": "Hello", "stream": True, "regex": "one\n\ntwo\n", "max_new_tokens": 20}
        text = serve("qwen2-instruct").client().post("/", json=body).get_data(as_text=True)
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        assert "".join(event.get("response", "") for event in events) == "one\n\ntwo\n"
        assert text.rstrip().endswith("data: [DONE]")

    def test_it_samples_as_its_generation_config_says(self, serve):
        defaults = serve("qwen2-instruct").inference.model.defaults
        assert (defaults.temperature, defaults.top_p, defaults.top_k) == (0.7, 0.8, 20)
        assert defaults.repetition_penalty == 1.1


class TestGlm:
    @pytest.mark.parametrize("family", ["glm4", "glm"])
    def test_its_start_tokens_stand_in_front_once(self, serve, family_folder, family):
        """The template writes them, and the tokenizer would put them there a second time."""
        model = serve(family).inference.model
        ids = model.encode_chat([{"role": "user", "content": "hi"}])
        names = model.tokenizer.convert_ids_to_tokens(ids)
        assert names[:3] == ["[gMASK]", "<sop>", "<|user|>"]
        assert names.count("[gMASK]") == 1 and names[-2] == "<|assistant|>"

    def test_chatglms_request_and_prompt_form(self, serve):
        world = serve("chatglm", max_new_tokens=900)
        fields = {"prompt": "q2", "history": [["q1", "a1"]], "max_length": 60, "top_p": 0.7, "temperature": 0.95}
        answer = world.client().post("/chat", json=fields).get_json()
        assert answer["status"] == 200 and answer["history"] == [["q1", "a1"], ["q2", answer["response"]]]
        written = "[Round 0]\n\u95ee\uff1aq1\n\u7b54\uff1aa1\n[Round 1]\n\u95ee\uff1aq2\n\u7b54\uff1a"
        assert answer["usage"]["prompt_tokens"] == len(world.inference.model.encode(written))
        assert answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"] <= 60


class TestStarCoder:
    @pytest.mark.parametrize("family", ["gpt-bigcode", "starcoder2"])
    def test_it_fills_the_middle(self, serve, family_folder, family):
        folder = family_folder(family)
        body = {"prefix": "def f(x):\n    return ", "suffix": "\n", "max_new_tokens": 8, "temperature": 0}
        answer = serve(family).client().post("/infill", json=body).get_json()
        _, tokenizer = reference.load(folder)
        prompt = tokenizer(f"<fim_prefix>{body['prefix']}<fim_suffix>{body['suffix']}<fim_middle>")["input_ids"]
        ends = tokenizer.convert_tokens_to_ids([END, *FIM])
        expected = reference.greedy(folder, prompt, 8, eos_token_id=ends)
        assert answer["infills"] == [reference.text(folder, expected)]


class TestEncoders:
    def test_bert_answers_what_the_pipeline_answers_before_and_after_a_restart(self, serve, family_folder):
        expected = pipeline("fill-mask", model=str(family_folder("bert")))("test [MASK]")
        for _ in range(2):
            world = serve("bert")
            found = world.client().post("/", data="test [MASK]", content_type="text/plain").get_json()
            world.stop()
            assert [set(one) for one in found] == [{"score", "token", "token_str", "sequence"}] * 5
            for name in ("token", "token_str", "sequence"):
                assert [one[name] for one in found] == [one[name] for one in expected]
            assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)

    def test_a_sentence_model_answers_its_own_vectors(self, serve, family_folder):
        folder = family_folder("sentence")
        tokens = AutoTokenizer.from_pretrained(folder)("def f", return_tensors="pt")
        with torch.inference_mode():
            vector = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0, 0]
        expected = (vector / vector.norm()).tolist()
        body = {"input": "def f", "model": "sentence"}
        [found] = serve("sentence").client().post("/v1/embeddings", json=body).get_json()["data"]
        assert found["embedding"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", ["codegen", "qwen2-instruct"])
def test_a_record_id_comes_back(serve, family):
    body = {"recordid": "77492467", "prompt": "a", "max_new_tokens": 2}
    assert serve(family).client().post("/complete", json=body).get_json()["recordid"] == "77492467"
