"""Quantised checkpoints behind a real server: greedy text is that of the decoded weights; it says what it serves."""

from __future__ import annotations

import pytest
import torch

from tests.quantized_layouts import LAYOUTS
from tests.tiny_models import tiny_tokenizer
from tests.tiny_quantized import reference_model, save_quantized

pytestmark = pytest.mark.slow

PROMPTS = ("def f(x):", "import os\n", "The lever was", "1984")
NUM_NEW = 16
SERVED = {
    "awq": ("awq", "file"),
    "gptq, asymmetric, in the order of activations": ("gptq", "file"),
    "bytes": ("compressed-tensors", "int8"),
    "blocks of floats": ("fp8", "int8"),
    "nf4, nested": ("bitsandbytes", "int8"),
}


def greedy_texts(meant):
    """What transformers' ``generate`` says of the decoded weights."""
    model, tokenizer = reference_model(meant), tiny_tokenizer()
    options = {"max_new_tokens": NUM_NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 1, "top_k": None}
    texts = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        found = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        texts.append(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


@pytest.mark.parametrize("name", SERVED)
def test_greedy_text_in_float32_is_that_of_the_decoded_weights(tmp_path, start_forklift, name):
    expected = greedy_texts(save_quantized(tmp_path / "model", LAYOUTS[name], num_files=2))
    server = start_forklift(model=tmp_path / "model", dtype="float32", max_batch_size=4)
    body = {"prompt": list(PROMPTS), "max_tokens": NUM_NEW, "temperature": 0, "ignore_eos": True}
    choices = server.post("/v1/completions", json=body).json()["choices"]
    assert [choice["text"] for choice in choices] == expected


@pytest.mark.parametrize("name", SERVED)
def test_a_server_keeps_the_form_of_the_folder_and_says_so(tmp_path, start_forklift, name):
    save_quantized(tmp_path / "model", LAYOUTS[name])
    server = start_forklift(model=tmp_path / "model", max_batch_size=4)
    [told] = server.get("/v1/capabilities")[1]["data"]
    assert ((told["format"], told["quantization"]), told["dropped"], told["engine"]) == (SERVED[name], [], "mixed")
    body = {"prompt": list(PROMPTS), "max_tokens": NUM_NEW, "temperature": 0, "ignore_eos": True}
    together = [choice["text"] for choice in server.post("/v1/completions", json=body).json()["choices"]]
    alone = [server.post("/v1/completions", json=body | {"prompt": one}).json()["choices"][0] for one in PROMPTS]
    if told["quantization"] == "int8":
        assert together == [choice["text"] for choice in alone]
    assert all(together)
