"""Browsers: names in Host, pages of other origins, preflights."""

from __future__ import annotations

import gzip
import json

import pytest

from app.core.parsing.addresses import parse_addresses
from app.core.parsing.hosts import default_hosts, is_allowed_host
from tests.contract.conftest import client_of
from tests.contract.reading import assert_envelope

BODY = {"prompt": "ab"}
PAGE = "https://page.example"


def post(client, **headers):
    return client.post(
        "/complete", json=BODY, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(
    ("bind", "host", "is_allowed"),
    [
        ("127.0.0.1:5000", "localhost:5000", True),
        ("127.0.0.1:5000", "127.0.0.1", True),
        ("127.0.0.1:5000", "[::1]:80", True),
        ("localhost:5000", "LOCALHOST.", True),
        ("[::1]:5000", "app.localhost:1", True),
        ("127.0.0.1:5000", "127.9.9.9:5000", True),
        ("127.0.0.1:5000", "rebound.example:5000", False),
        ("127.0.0.1:5000", "localhost.example", False),
        ("127.0.0.1:5000", "192.168.0.1:5000", False),
        ("127.0.0.1:5000", "", False),
        ("127.0.0.1:5000", "[::1", False),
        ("127.0.0.1:5000,[::1]:5000", "rebound.example", False),
    ],
)
def test_a_server_on_loopback_answers_to_loopbacks_names(bind, host, is_allowed):
    assert is_allowed_host(host, default_hosts(parse_addresses(bind))) is is_allowed


@pytest.mark.parametrize("bind", ["0.0.0.0:5000", "[::]:5000", ":5000", "unix:/run/x", "127.0.0.1:5000,10.0.0.1:5000"])
def test_other_servers_answer_to_any_name(bind):
    assert default_hosts(parse_addresses(bind)) == ()


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [("api.example", True), ("API.example:443", True), ("a.b.example.org", True), ("example.org", False), ("x", False)],
)
def test_names_may_be_listed(host, is_allowed):
    assert is_allowed_host(host, ["api.example", "*.example.org"]) is is_allowed


def test_a_host_that_is_not_allowed_gets_421_on_every_route_and_others_are_served(make_world):
    with client_of(make_world(bind="127.0.0.1:5000")) as client:
        assert post(client, Host="localhost:5000").status_code == 200
        assert_envelope(post(client, Host="rebound.example"), 421, "host_not_allowed")
        assert_envelope(client.get("/readyz", headers={"Host": "rebound.example"}), 421, "host_not_allowed")


@pytest.mark.parametrize("host", ["10.0.0.7:5000", "10.0.0.7", "[fd00::7]:5000"])
def test_probes_and_scrapers_that_only_know_the_address_are_answered(make_world, host):
    with client_of(make_world(allowed_hosts="api.example")) as client:
        for path in ("/livez", "/readyz", "/health", "/metrics"):
            assert client.get(path, headers={"Host": host}).status_code == 200
            assert_envelope(client.get(path, headers={"Host": "rebound.example"}), 421, "host_not_allowed")
        assert_envelope(post(client, Host=host), 421, "host_not_allowed")
        assert_envelope(client.get("/v1/models", headers={"Host": host}), 421, "host_not_allowed")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "https://localhost"}, 200),
        ({"Origin": PAGE}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:8080"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site", "Origin": "http://localhost"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Sec_Fetch_Site": "same-origin", "Origin": PAGE}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
    ],
)
def test_a_post_of_another_page_is_refused_and_sec_fetch_site_wins(client, headers, status):
    assert post(client, **headers).status_code == status


def test_a_form_or_text_that_a_page_posts_is_refused_too(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = client.post("/", data="data=x", content_type=kind, headers={"Sec-Fetch-Site": "cross-site"})
        assert_envelope(answer, 403, "cross_site_request")


def test_reading_routes_need_no_origin(client):
    assert client.get("/livez", headers={"Sec-Fetch-Site": "cross-site", "Origin": PAGE}).status_code == 200


@pytest.mark.parametrize("listed", [PAGE, "*", f"{PAGE}/"])
def test_a_listed_origin_may_call_and_read(make_world, listed):
    with client_of(make_world(cors_origins=(listed,), api_keys=("sesame",))) as client:
        asked = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, x-stainless-os",
        }
        preflight = client.options("/v1/chat/completions", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == ("*" if listed == "*" else PAGE)
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, x-stainless-os"
        assert "Origin" in preflight.headers["Vary"]
        answer = post(client, Origin=PAGE, Sec_Fetch_Site="cross-site", Authorization="Bearer sesame")
        assert answer.status_code == 200
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        refused = post(client, Origin=PAGE, Sec_Fetch_Site="cross-site")
        assert refused.status_code == 401 and "Access-Control-Allow-Origin" in refused.headers


def test_an_origin_that_is_not_listed_is_told_nothing(make_world):
    with client_of(make_world(cors_origins=(PAGE,))) as client:
        headers = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
        assert "Access-Control-Allow-Origin" not in client.options("/complete", headers=headers).headers
        assert post(client, Origin="https://other.example").status_code == 403


def test_options_needs_no_key_and_tells_the_methods(make_world):
    with client_of(make_world(api_keys=("sesame",))) as client:
        answer = client.options("/complete")
        assert answer.status_code == 204 and "POST" in answer.headers["Allow"]
        assert client.options("/nowhere").status_code == 404


def test_an_encoded_body_is_refused_with_415(client):
    packed = gzip.compress(json.dumps(BODY).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert_envelope(client.post("/complete", data=packed, headers=headers), 415, "unsupported_media_type")
    assert client.post("/complete", json=BODY, headers={"Content-Encoding": "identity"}).status_code == 200


def test_health_answers_as_readyz_without_a_key(make_world):
    with client_of(make_world(api_keys=("sesame",))) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health").get_json()["state"] == client.get("/readyz").get_json()["state"]
