"""What a registry may hold: entries as servers write them, and whatever else somebody put there."""

from __future__ import annotations

import json

import pytest

from app.client import SetupError
from app.client.discovery.registry_address import ListAddress, ZooKeeperAddress, registry_address
from app.client.discovery.server_entry import MOST_ENTRY_BYTES, ForeignEntryError, ServerEntry, entry_bytes, entry_of

ENTRY = ServerEntry(
    "a1", "https://10.0.0.5:5000/llm", "ready", ("qwen", "bert"), ("generate",), 11, 50, "r1", "0.2.0", "10.0.0.5:5001"
)


def changed(**fields):
    return json.dumps({**json.loads(entry_bytes(ENTRY)), **fields}).encode()


def test_an_entry_comes_back_as_it_was_written():
    assert entry_of(entry_bytes(ENTRY)) == ENTRY


def test_an_entry_is_small():
    assert len(entry_bytes(ENTRY)) < 300


def test_fields_of_later_versions_are_passed_over():
    assert entry_of(changed(colour="red")) == ENTRY


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"format": 1}',
        b"[" * 60_000,
        b'{"format": 1, "places": NaN}',
        b"x" * (MOST_ENTRY_BYTES + 1),
    ],
    ids=repr,
)
def test_what_is_no_entry_is_refused_with_a_line(data):
    with pytest.raises(ForeignEntryError) as caught:
        entry_of(data)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 2},
        {"id": ""},
        {"id": "../x"},
        {"id": "a" * 65},
        {"http": "ftp://10.0.0.5"},
        {"http": "file:///etc/passwd"},
        {"http": "http://user:pw@10.0.0.5:1"},
        {"http": "http://10.0.0.5:99999"},
        {"http": "http://10.0.0.5:1/\r\nX: y"},
        {"http": "http://" + "a" * 300},
        {"http": 5},
        {"state": "asleep"},
        {"state": ["ready"]},
        {"models": "qwen"},
        {"models": [1]},
        {"models": [""]},
        {"models": ["a\nb"]},
        {"models": ["a"] * 1001},
        {"places": 0},
        {"places": True},
        {"places": 1e3},
        {"weight": 10_001},
        {"zone": None},
        {"zone": "z" * 201},
        {"version": "\x1b[31m"},
        {"grpc": "http://10.0.0.5:1"},
        {"grpc": "10.0.0.5"},
    ],
    ids=repr,
)
def test_a_field_of_another_kind_is_refused(fields):
    with pytest.raises(ForeignEntryError):
        entry_of(changed(**fields))


def test_a_server_takes_what_it_has_and_one_that_is_not_known_may():
    assert ENTRY.can_take("bert", "fill-mask")
    assert ENTRY.can_take(None, "generate")
    assert not ENTRY.can_take("llama", "generate")
    assert not ENTRY.can_take(None, "embeddings")
    assert ServerEntry("b", "http://b").can_take("llama", "embeddings")


def test_the_urls_of_registries():
    assert registry_address("zookeeper://h1,h2:2182/a/b?session_s=4") == ZooKeeperAddress(
        ("h1:2181", "h2:2182"), "/a/b", 4.0
    )
    assert registry_address("zookeeper://u:p%40ss@h1").login == "u:p@ss"
    assert registry_address("zookeeper://[::1]:9/x").hosts == ("[::1]:9",)
    assert registry_address("forklift://a,b:1/llm") == ListAddress(("http://a:5000/llm", "http://b:1/llm"))
    assert registry_address("forklifts://a:443,a:443") == ListAddress(("https://a:443",))
    assert registry_address("grpc://a,b:1") == ListAddress(("grpc://a:50051", "grpc://b:1"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h1:2181",
        "etcd://h1",
        "zookeeper://",
        "zookeeper://h1,,h2",
        "zookeeper://h1:0",
        "zookeeper://h1:99999",
        "zookeeper://h1/a b",
        "zookeeper://h1/../x",
        "zookeeper://h1?session=4",
        "zookeeper://h1?session_s=0.1",
        "zookeeper://h1?session_s=nan",
        "zookeeper://h1?cert=a&key=b",
        "zookeeper://user@h1",
        "forklift://",
        "forklift://a?x=1",
        "forklift://a:b",
    ],
)
def test_another_url_is_refused_with_a_line(url):
    with pytest.raises(SetupError) as caught:
        registry_address(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["zookeeper://u:sesame@h1:0", "zookeeper://u:sesame@h1?x=1", "etcd://u:sesame@h1"])
def test_a_password_stands_in_no_error(url):
    with pytest.raises(SetupError) as caught:
        registry_address(url)
    assert "sesame" not in str(caught.value)
    assert "sesame" not in repr(registry_address("zookeeper://u:sesame@h1"))
