"""Every row of the error table, on every kind of route, in production and under TESTING."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from app.core.errors import (
    InternalError,
    LoadingError,
    OverloadedError,
    QueueTimeoutError,
    RequestTimeoutError,
    ShuttingDownError,
)
from tests.contract.conftest import client_of
from tests.contract.doubles import Gate
from tests.contract.reading import assert_envelope

GOOD = {"prompt": "abc"}


@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "patch"])
@pytest.mark.parametrize("path", ["/nope", "/complete/", "/v1", "/static/x", "/%00"])
def test_unknown_routes(client, method, path):
    assert_envelope(getattr(client, method)(path), 404, "route_not_found")


def test_doubled_slashes_are_not_merged_by_a_redirect(client):
    assert_envelope(client.get("/v1//models"), 404, "route_not_found")


def test_an_empty_path_means_the_root(client):
    response = client.post("/", json=GOOD, environ_overrides={"PATH_INFO": ""})
    assert (response.status_code, response.headers["Location"]) == (308, "http://localhost/")


@pytest.mark.parametrize(("method", "path"), [("get", "/complete"), ("delete", "/"), ("post", "/v1/models")])
def test_wrong_methods_tell_the_right_ones(client, method, path):
    response = getattr(client, method)(path)
    assert_envelope(response, 405, "method_not_allowed")
    assert response.headers["Allow"]


def test_head_and_options_are_answered(client):
    assert client.head("/livez").status_code == 200
    assert client.head("/nope").status_code == 404
    assert "POST" in client.options("/complete").headers["Allow"]


@pytest.mark.parametrize("name", ["other", "a/b", "%2e%2e", "scripted/"])
def test_unknown_models(client, name):
    assert_envelope(client.get(f"/v1/models/{name}"), 404, "model_not_found", "model")


def test_overload_is_a_real_503_with_advice(make_world):
    world = make_world(max_queue=0)
    client, place = client_of(world), world.context.admission.enter()
    for body in (GOOD, GOOD | {"stream": True}):
        response = client.post("/complete", json=body)
        assert_envelope(response, 503, "overloaded")
        assert response.headers["Retry-After"].isdigit()
    assert world.model.encoded == [], "refused before the prompt is tokenized"
    place.release()
    assert client.post("/complete", json=GOOD).status_code == 200


@pytest.mark.parametrize(("state", "code"), [("loading", "loading"), ("draining", "shutting_down")])
def test_a_server_that_is_not_ready_says_why(make_world, state, code):
    response = client_of(make_world(state)).post("/complete", json=GOOD)
    assert_envelope(response, 503, code)
    assert response.headers["Retry-After"].isdigit()


@pytest.mark.parametrize("error", [LoadingError("l", retry_after_s=2), ShuttingDownError("s", retry_after_s=1)])
def test_an_engine_that_refuses_the_job_costs_no_place(client, world, error):
    world.inference.refuse_with = error
    assert_envelope(client.post("/complete", json=GOOD), 503, error.code)
    assert world.num_places() == 0


def test_a_model_that_is_gone_after_admission_is_loading(client, world):
    model, world.inference.model = world.inference.model, None
    assert_envelope(client.post("/complete", json=GOOD), 503, "loading")
    world.inference.model = model
    assert client.post("/complete", json=GOOD).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        QueueTimeoutError("q"),
        RequestTimeoutError("r"),
        InternalError(),
        ShuttingDownError("s", retry_after_s=1),
        OverloadedError("o", retry_after_s=3),
    ],
    ids=lambda error: error.code,
)
def test_what_the_engine_reports_becomes_the_status(client, world, error, stream):
    world.inference.script = [error]
    response = client.post("/complete", json=GOOD | {"stream": stream})
    assert_envelope(response, error.status, error.code)
    assert response.headers.get("X-Should-Retry") == ("false" if error.status == 504 else None)
    assert response.headers.get("Retry-After") == (str(error.retry_after_s) if error.retry_after_s else None)
    world.inference.script = ["fine"]
    assert client.post("/complete", json=GOOD).status_code == 200


def test_an_error_after_some_text_is_a_real_status_where_nothing_was_sent(client, world):
    world.inference.script = ["some text", RequestTimeoutError("r")]
    assert_envelope(client.post("/complete", json=GOOD), 504, "request_timeout")


@pytest.mark.parametrize("stream", [False, True])
def test_our_own_bug_answers_a_generic_text_and_logs_the_cause(client, world, monkeypatch, stream):
    monkeypatch.setattr(world.model, "encode", lambda text: 1 / 0)
    with capture_logs() as lines:
        response = client.post("/complete", json=GOOD | {"stream": stream}, headers={"X-Request-Id": "r-1"})
    error = assert_envelope(response, 500, "internal_error")
    assert "division" not in str(error)
    cause = next(line for line in lines if line["event"] == "request_failed")
    assert cause["request_id"] == "r-1" and isinstance(cause["exc_info"], ZeroDivisionError)
    assert lines[-1]["event"] == "request" and lines[-1]["error"] == "internal_error"
    assert world.num_places() == 0


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/models", "/"])
def test_our_own_bug_on_other_routes_answers_the_envelope_too(app, client, monkeypatch, path):
    monkeypatch.setattr("flask.views.View.ensure_sync", 1, raising=False)
    # Each route is registered under its own address.
    assert path in app.view_functions
    monkeypatch.setitem(app.view_functions, path, lambda: 1 / 0)
    assert_envelope(client.get(path), 500, "internal_error")


def test_a_bug_in_a_hook_answers_the_envelope(app):
    @app.after_request
    def break_it(response):
        raise ZeroDivisionError

    response = app.test_client().get("/livez")
    assert response.status_code == 500
    assert response.get_json()["error"]["code"] == "internal_error"


def test_a_bug_after_a_stream_was_opened_gives_the_place_back(app, world):
    @app.after_request
    def break_it(response):
        raise ZeroDivisionError

    world.inference.script = ["a", Gate()]
    response = app.test_client().post("/complete", json=GOOD | {"stream": True})
    assert_envelope(response, 500, "internal_error")
    assert world.num_places() == 0 and world.inference.jobs[0].has_ended


def test_other_errors_of_the_framework_have_the_envelope(client, monkeypatch, world):
    from werkzeug.exceptions import BadGateway, ImATeapot, RequestTimeout

    for raised, status, code in ((ImATeapot, 418, "bad_request"), (RequestTimeout, 408, "body_timeout")):
        monkeypatch.setattr(world.model, "encode", lambda text, raised=raised: (_ for _ in ()).throw(raised()))
        assert_envelope(client.post("/complete", json=GOOD), status, code)
    monkeypatch.setattr(world.model, "encode", lambda text: (_ for _ in ()).throw(BadGateway()))
    assert client.post("/complete", json=GOOD).get_json()["error"]["code"] == "internal_error"


# As pyo3 makes it for each library: no ``Exception``.
PanicException = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


def test_a_panic_while_a_request_is_read_is_its_own_400(client, world, monkeypatch):
    def panic(*_args: object, **_options: object) -> list[int]:
        raise PanicException("in a tokenizer")

    monkeypatch.setattr(type(world.inference.handles[0].model), "encode", panic)
    response = client.post("/complete", json={"prompt": "a"})
    assert (response.status_code, response.json["error"]["code"]) == (400, "invalid_parameter")
    monkeypatch.undo()
    assert client.post("/complete", json={"prompt": "a"}).status_code == 200
