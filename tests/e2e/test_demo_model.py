"""The first curls of a new user, against the embedded demo model."""

from __future__ import annotations

import ast
import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.settings import DEMO_MODEL

PROMPT = "#print hello world function"


def events_of(response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


def test_the_root_completes_code_as_a_json_string(demo):
    answer = demo.post("/", json={"data": PROMPT}).json()
    assert answer.startswith(PROMPT)
    assert len(answer) > len(PROMPT) + 10


def test_the_put_form_answers_the_same(demo):
    import requests

    answer = requests.put(demo.url, data={"data": PROMPT}, timeout=60).json()
    assert answer == demo.post("/", json={"data": PROMPT}).json()


@pytest.mark.slow
def test_greedy_output_is_that_of_generate(start_forklift):
    demo = start_forklift(dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    for text in (PROMPT, "import os\n\n\ndef walk(", "class Stack:\n    def __init__(self):"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=60)
        expected = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        answer = demo.post("/complete", json={"prompt": text, "max_new_tokens": 60}).json()
        assert answer["completion"] == expected


def test_a_stream_comes_in_pieces_that_join_to_the_whole(demo):
    body = {"prompt": "def read_file(path):\n", "max_new_tokens": 60}
    whole = demo.post("/complete", json=body).json()["completion"]
    events = events_of(demo.post("/complete", json={**body, "stream": True}))
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["completion"] for event in events[:-1]]
    assert "".join(pieces) == whole
    assert len(pieces) > 3


def test_it_answers_a_question_about_the_standard_library(demo):
    answer = demo.post("/chat", json={"prompt": "What does textwrap.dedent do?", "history": []}).json()
    assert re.search("whitespace", answer["response"])
    assert answer["status"] == 200
    assert answer["history"] == [["What does textwrap.dedent do?", answer["response"]]]


def test_the_prompt_form_of_the_root_chats(demo):
    answer = demo.post("/", json={"prompt": "What does os.getcwd do?"}).json()
    assert set(answer) == {"response", "status", "time"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", answer["time"])


@pytest.mark.slow
def test_completions_of_functions_are_python(demo):
    prompts = [
        "def add(a, b):\n",
        "def read_lines(path):\n",
        "def is_empty(items):\n",
        "def close(self):\n",
        "def __len__(self):\n",
        "def main():\n",
    ]
    num_parsed = 0
    for prompt in prompts:
        completion = demo.post("/complete", json={"prompt": prompt, "max_new_tokens": 64}).json()["completion"]
        try:
            ast.parse(prompt + completion[: completion.rfind("\n") + 1])
        except SyntaxError:
            continue
        num_parsed += 1
    assert num_parsed >= len(prompts) // 2


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_repeats_itself(demo, seed):
    body = {"prompt": "class Queue:\n", "max_new_tokens": 30, "temperature": 1.0, "seed": seed}
    first, again = (demo.post("/complete", json=body).json()["completion"] for _ in range(2))
    assert first == again
    other = demo.post("/complete", json={**body, "seed": seed + 10}).json()["completion"]
    assert other != first
