"""Programs that Forklift replaces, for tasks of texts: transformers' pipeline, or ``generate``, in one Flask view.

Loads at import, answers one request after another under a lock.
Run as ``python -m benchmarks.task_flask TASK MODEL PORT``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from flask import Flask, Response, jsonify, request
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

Answer = Callable[[dict[str, Any]], Any]


def classifying(source: str) -> Answer:
    classify = pipeline("text-classification", model=source)
    return lambda body: classify(body["input"])


def reranking(source: str) -> Answer:
    classify = pipeline("text-classification", model=source)

    def rerank(body: dict[str, Any]) -> Any:
        pairs = [{"text": body["query"], "text_pair": document} for document in body["documents"]]
        scores = [one["score"] for one in classify(pairs)]
        return sorted(enumerate(scores), key=lambda pair: pair[1], reverse=True)

    return rerank


def generating(source: str) -> Answer:
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSeq2SeqLM.from_pretrained(source).eval()

    def generate(body: dict[str, Any]) -> Any:
        with torch.inference_mode():
            output = model.generate(**tokenizer(body["prompt"], return_tensors="pt"), max_new_tokens=body["max_tokens"])
        return tokenizer.decode(output[0], skip_special_tokens=True)

    return generate


ANSWERS: dict[str, Callable[[str], Answer]] = {"classify": classifying, "rerank": reranking, "seq2seq": generating}


def make_app(task: str, source: str) -> Flask:
    app = Flask(__name__)
    answer, lock = ANSWERS[task](source), threading.Lock()

    @app.post("/")
    def post() -> Response:
        with lock:
            return jsonify({"answer": answer(request.get_json())})

    @app.get("/readyz")
    def readyz() -> Response:
        return jsonify({"state": "ready"})

    return app


if __name__ == "__main__":
    make_app(sys.argv[1], sys.argv[2]).run("127.0.0.1", int(sys.argv[3]), threaded=True, use_reloader=False)
