"""``/openapi.json``: it names every route, and real answers are what it says."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest
from jsonschema import Draft202012Validator

from app.core.errors import RequestTimeoutError
from app.http.description.task_routes import TASK_ROUTES
from tests.contract.conftest import client_of
from tests.contract.describing import RoomyModel
from tests.contract.real import RealWorld
from tests.thinned import few_of

CONVERSING = ("/v1/chat/completions", "/v1/messages", "/v1/responses")
GENERATING = ("/complete", "/chat", "/infill", "/v1/completions", *CONVERSING)
HI = {"messages": [{"role": "user", "content": "a"}]}
BODIES = {
    "/infill": {"prefix": "a"},
    "/v1/chat/completions": HI,
    "/v1/messages": {**HI, "max_tokens": 8},
    "/v1/responses": {"input": "a"},
}
# Answer with one completion, without log-probabilities.
PLAIN = ("/infill", "/v1/messages", "/v1/responses")


@pytest.fixture
def world(make_world):
    return make_world(model=RoomyModel())


@cache
def read(text):
    """It is long, and asked for by each test."""
    return json.loads(text)


@pytest.fixture
def document(client):
    return read(client.get("/openapi.json").get_data(as_text=True))


def assert_conforms(document, response, path, method="post"):
    """Status, media type and body are in the description of the route."""
    answers = document["paths"][path][method]["responses"]
    assert str(response.status_code) in answers, response.get_data(as_text=True)
    answer = answers[str(response.status_code)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    assert response.mimetype in answer["content"]
    assert set(answer["headers"]) <= set(response.headers.keys())
    if response.mimetype == "application/json":
        schema = answer["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(response.get_json())


def test_every_route_and_method_is_described(app, document):
    handle = {
        (re.sub(r"<\w+:(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == handle


def test_every_schema_is_a_valid_one_and_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    for kind, name in re.findall(r"#/components/(\w+)/([\w-]+)", str(document)):
        assert name in document["components"][kind]


def test_every_example_is_valid_and_answered(document, client):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                if "example" not in content:
                    continue
                Draft202012Validator({**content["schema"], "components": document["components"]}).validate(
                    content["example"]
                )
                sent = {"json": content["example"]} if kind == "application/json" else {"data": content["example"]}
                response = client.open(path, method=method.upper(), content_type=kind, **sent)
                is_for_encoders = kind == "text/plain" or TASK_ROUTES.get(path, ("generate",))[0] != "generate"
                expected = 403 if "lora_adapter" in path else 400 if is_for_encoders else 200
                assert response.status_code == expected, (path, response.get_json())
                assert_conforms(document, response, path, method)


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/capabilities", "/livez", "/readyz", "/metrics", "/docs"])
def test_what_is_got_is_as_described(document, client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert_conforms(document, response, path, "get")


def test_a_model_by_name_is_as_described(document, client):
    for name, status in (("scripted", 200), ("other", 404)):
        response = client.get(f"/v1/models/{name}")
        assert response.status_code == status
        assert_conforms(document, response, "/v1/models/{name}", "get")


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("options", [{}, {"n": 2}, {"logprobs": 2}, {"n": 2, "logprobs": 1}, {"stream": True}])
def test_generated_answers_are_as_described(document, client, path, options):
    if path == "/v1/chat/completions" and "logprobs" in options:
        options = {**options, "logprobs": True}
    response = client.post(path, json={**BODIES.get(path, {"prompt": "a"}), **options})
    refused = path in PLAIN and {"n", "logprobs"} & set(options)
    assert response.status_code == (400 if refused else 200)
    assert_conforms(document, response, path)


@pytest.mark.parametrize("path", few_of(["/", *GENERATING], 6))
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"data": "{", "content_type": "application/json"}, 400),
        ({"json": {"temperature": -1, "prompt": "a"}}, 400),
        ({"data": "a", "content_type": "text/csv"}, 415),
        ({"data": "a" * 300, "content_type": "application/json"}, 413),
    ],
)
def test_refusals_are_as_described(document, make_world, path, sent, status):
    response = client_of(make_world(max_body_bytes=200)).post(path, **sent)
    assert response.status_code == status
    assert_conforms(document, response, path)


@pytest.mark.parametrize("path", few_of(GENERATING, 5))
def test_failures_of_the_engine_are_as_described(document, world, client, path):
    for failure, status in ((RequestTimeoutError("late"), 504), (ValueError("defect"), 500)):
        if status == 500:
            world.inference.refuse_with = failure
        world.inference.script = [failure]
        response = client.post(path, json=BODIES.get(path, {"prompt": "a"}))
        assert response.status_code == status
        assert_conforms(document, response, path)


def test_a_server_that_loads_answers_as_described(document, make_world):
    client = client_of(make_world("loading"))
    for path, method in (("/readyz", "get"), ("/v1/capabilities", "get"), ("/complete", "post")):
        sent = {"json": {"prompt": "a"}} if method == "post" else {}
        response = client.open(path, method=method.upper(), **sent)
        assert response.status_code == 503
        assert_conforms(document, response, path, method)


def test_a_missing_key_is_as_described(make_world):
    client = client_of(make_world(api_keys="k"))
    document = client.get("/openapi.json", headers={"Authorization": "Bearer k"}).get_json()
    assert document["security"] == [{"key": []}, {"keyOfAnthropic": []}]
    for path, methods in document["paths"].items():
        for method in methods:
            response = client.open(path, method=method.upper())
            assert (response.status_code == 401) == (path not in ("/livez", "/readyz", "/health"))
            assert_conforms(document, response, path, method)


@pytest.fixture(scope="module", params=["bert", "sentence"])
def encoder(request, model_folder):
    world = RealWorld(model_folder(request.param))
    yield world
    world.stop()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fill-mask", {"text": "a [MASK] b"}),
        ("/fill-mask", {"text": ["a [MASK] b [MASK]"]}),
        ("/v1/embeddings", {"input": ["a", "b"]}),
        ("/v1/embeddings", {"input": "a", "encoding_format": "base64"}),
        ("/embed", {"inputs": ["a", "b"]}),
        ("/info", None),
        ("/tokenize", {"text": "a"}),
        ("/v1/capabilities", None),
    ],
)
def test_answers_of_encoders_are_as_described(document, encoder, path, body):
    client = encoder.client()
    response = client.get(path) if body is None else client.post(path, json=body)
    assert_conforms(document, response, path, "get" if body is None else "post")


ANSWERED = [
    ("classify", "/classify", {"text": ["a", "b"], "top_k": 3}),
    ("classify", "/classify", {"input": "a"}),
    ("classify", "/predict", {"inputs": [["a"], ["a", "b"]]}),
    ("classify", "/info", None),
    ("rerank", "/rerank", {"query": "a", "documents": ["b", "c"], "return_documents": True, "recordid": 1}),
    ("rerank", "/rerank", {"query": "a", "texts": ["b"], "return_text": True}),
    ("rerank", "/v1/rerank", {"query": "a", "documents": [{"text": "b"}], "return_documents": True}),
    ("rerank", "/v2/rerank", {"query": "a", "documents": ["b"]}),
    ("rerank", "/v1/score", {"text_1": "a", "text_2": ["b", "c"]}),
    ("zero-shot", "/zero-shot", {"text": ["a"], "candidate_labels": ["b", "c"]}),
    ("entities", "/entities", {"text": "a b", "ignore_labels": []}),
    ("entities", "/entities", {"text": ["a b"], "aggregation_strategy": "simple", "ignore_labels": []}),
    ("answer", "/answer", {"question": "a", "context": "b c", "top_k": 3}),
]


@pytest.fixture(scope="module")
def of_task(model_folder):
    worlds = {}

    def client(task):
        if task not in worlds:
            worlds[task] = RealWorld(model_folder(f"bert-{task}"))
        return worlds[task].client()

    yield client
    for world in worlds.values():
        world.stop()


@pytest.mark.parametrize(("task", "path", "body"), ANSWERED)
def test_answers_about_texts_are_as_described(document, of_task, path, task, body):
    response = of_task(task).get(path) if body is None else of_task(task).post(path, json=body)
    assert response.status_code == 200
    assert_conforms(document, response, path, "get" if body is None else "post")
