"""A real server with a model for each task: what their users send, from outside, several at once."""

from __future__ import annotations

import threading

import pytest
from openai import OpenAI
from transformers import pipeline

from tests.e2e.several import start_several

# What single servers and doubles show is shown here once more with several models behind one address.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory, model_folder):
    folder = tmp_path_factory.mktemp("tasks")
    tables = {family: {"path": model_folder(family)} for family in ("bert", "sentence", "incoder")}
    yield from start_several(folder, tables)


def test_bert_fills_masks_for_many_at_once(server, model_folder):
    texts = [f"def {'a ' * i}[MASK](x):" for i in range(8)]
    found: dict[str, list] = {}

    def ask(text: str) -> None:
        headers = {"Content-Type": "text/plain"}
        found[text] = server.post("/", data=text.encode(), headers=headers).json()

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reference = pipeline("fill-mask", model=str(model_folder("bert")))
    for text in texts:
        expected = reference(text)
        assert [one["sequence"] for one in found[text]] == [one["sequence"] for one in expected]
        assert [one["score"] for one in found[text]] == pytest.approx([one["score"] for one in expected], abs=1e-5)
    refused = server.post("/complete", json={"prompt": "a", "model": "bert"})
    assert refused.status_code == 400 and "does not generate text" in refused.json()["error"]["message"]
    assert all((row["num_running"], row["num_waiting"]) == (0, 0) for row in server.rows())


def test_openais_client_gets_embeddings(server):
    with OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="sentence", input=["def f", "a"])
        plain = client.embeddings.create(model="sentence", input="def f", encoding_format="float")
    assert [len(one.embedding) for one in answer.data] == [64, 64]
    assert answer.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-5)
    assert answer.usage.total_tokens > 0


def test_incoder_fills_holes(server):
    body = {"parts": ["def f(x):\n    ", "\n    return ", "\n"], "max_new_tokens": 8}
    answer = server.post("/infill", json=body).json()
    assert len(answer["infills"]) == 2
    assert answer["text"].startswith("def f(x):\n    ") and answer["text"].endswith("\n")
    chat = server.post("/v1/embeddings", json={"input": "a", "model": "incoder"})
    assert chat.status_code == 400 and "does not make embeddings" in chat.json()["error"]["message"]
