"""The kind of program that Forklift replaces: code completion in one Flask view (SOURCES S1).

Loads at import, generates in the request, one request after another under a lock.
Run as ``python -m benchmarks.plain_flask MODEL PORT [DEVICE]``.
"""

from __future__ import annotations

import sys
import threading

import torch
from flask import Flask, Response, jsonify, request
from transformers import AutoModelForCausalLM, AutoTokenizer


def make_app(source: str, device: str) -> Flask:
    app = Flask(__name__)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto").to(device)
    lock = threading.Lock()

    @app.post("/v1/completions")
    def complete() -> Response:
        body = request.get_json()
        inputs = tokenizer(body["prompt"], return_tensors="pt").to(device)
        with lock, torch.inference_mode():
            output = model.generate(**inputs, do_sample=False, max_new_tokens=body["max_tokens"])
        num_prompt = inputs["input_ids"].shape[1]
        text = tokenizer.decode(output[0, num_prompt:])
        return jsonify({"choices": [{"text": text}], "usage": {"completion_tokens": output.shape[1] - num_prompt}})

    @app.get("/readyz")
    def readyz() -> Response:
        return jsonify({"state": "ready"})

    return app


if __name__ == "__main__":
    make_app(sys.argv[1], (*sys.argv, "cpu")[3]).run("127.0.0.1", int(sys.argv[2]), threaded=True, use_reloader=False)
