"""Requests whose end two servers might see in different places: one answer at most, and never one to what is hidden.

Each connection carries one request, so nothing behind it is ever read as another; what is left is that a framing which
can be understood in two ways is refused instead of guessed at.
"""

from __future__ import annotations

import pytest

from tests.service.conftest import wait_for
from tests.service.test_stopping import read_all

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
START = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def te(value: bytes, name: bytes = b"Transfer-Encoding") -> bytes:
    return START + name + b": " + value + b"\r\n\r\n" + CHUNKED


REFUSED = {
    "length and chunked": START + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked and length": START + b"Transfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n" + CHUNKED,
    "two lengths": START + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "two equal lengths": START + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": START + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": START + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": START + b"Content-Length: -5\r\n\r\nhello",
    "a hexadecimal length": START + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with an underscore": START + b"Content-Length: 1_0\r\n\r\nhellohello",
    "a length in other digits": START + "Content-Length: \u0665\r\n\r\n".encode() + b"hello",
    "an empty length": START + b"Content-Length: \r\n\r\nhello",
    "a space before the colon": START + b"Content-Length : 5\r\n\r\nhello",
    "a tab before the colon": START + b"Transfer-Encoding\t: chunked\r\n\r\n" + CHUNKED,
    "a name with a control": START + b"Transfer-Encoding\x0b: chunked\r\n\r\n" + CHUNKED,
    "a line without a colon": START + b"Transfer-Encoding chunked\r\n\r\n" + CHUNKED,
    "chunked twice": te(b"chunked, chunked"),
    "chunked in two fields": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked and something else": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" + CHUNKED,
    "chunked, then gzip": te(b"chunked, gzip"),
    "gzip, then chunked": te(b"gzip, chunked"),
    "identity, then chunked": te(b"identity, chunked"),
    "identity": START + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    "an unknown coding": te(b"xchunked"),
    "a quoted coding": te(b'"chunked"'),
    "a coding with a parameter": te(b"chunked; q=1"),
    "a coding behind a control": te(b"\x0bchunked"),
    "an empty coding": te(b""),
    "chunked in HTTP/1.0": START.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "folded": START + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "folded before all": b"POST /echo HTTP/1.1\r\n Host: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "a bare line feed in the head": START + b"X: 1\nContent-Length: 5\r\n\r\nhello",
    "bare line feeds only": START.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\nhello",
    "a bare carriage return in a value": START + b"X: 1\rContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    "a NUL in a value": START + b"X: a\x00b\r\nContent-Length: 5\r\n\r\nhello",
    "a chunk size with a sign": te(b"chunked").replace(CHUNKED, b"+5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size with a prefix": te(b"chunked").replace(CHUNKED, b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size behind a space": te(b"chunked").replace(CHUNKED, b" 5\r\nhello\r\n0\r\n\r\n"),
    "a chunk size that overflows": te(b"chunked").replace(CHUNKED, b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "a chunk size ended by a line feed": te(b"chunked").replace(CHUNKED, b"5\nhello\r\n0\r\n\r\n"),
    "a chunk longer than its size": te(b"chunked").replace(CHUNKED, b"5\r\nhellohello\r\n0\r\n\r\n"),
    "an extension with a line feed": te(b"chunked").replace(CHUNKED, b"5;a=\nb\r\nhello\r\n0\r\n\r\n"),
    "a version of its own": START.replace(b"HTTP/1.1", b"HTTP/1.10") + b"Content-Length: 5\r\n\r\nhello",
    "two spaces in the request line": START.replace(b"POST /echo", b"POST  /echo") + b"Content-Length: 5\r\n\r\nhello",
}
SERVED = {
    "a length": START + b"Content-Length: 5\r\n\r\nhello",
    "a length with zeros in front": START + b"Content-Length: 005\r\n\r\nhello",
    "chunked": te(b"chunked"),
    "chunked in capitals": te(b"CHUNKED", b"TRANSFER-ENCODING"),
    "chunked between blanks": te(b"\t chunked \t"),
    "an extension": te(b"chunked").replace(CHUNKED, b"5;a=b\r\nhello\r\n0;x\r\n\r\n"),
    "a trailer": te(b"chunked").replace(b"0\r\n\r\n", b"0\r\nContent-Length: 40\r\n\r\n"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_framing_with_two_meanings_is_refused(plain_server, name):
    with plain_server.connect(REFUSED[name] + HIDDEN) as client:
        answer = read_all(client)
    assert answer[9:12] in (b"400", b"501", b"505"), answer[:100]
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("name", SERVED)
def test_a_framing_with_one_meaning_is_served_and_what_follows_is_not(plain_server, name):
    with plain_server.connect(SERVED[name] + HIDDEN) as client:
        answer = read_all(client)
    assert answer[9:12] == b"200" and answer.endswith(b'{"body": "hello", "length": 5}')
    assert answer.count(b"HTTP/1.1 ") == 1


def test_nothing_of_all_this_was_taken_for_a_request(plain_server):
    wait_for(lambda: plain_server.get("/livez")[0] == 200, "a probe")
    assert "hidden" not in plain_server.log()
    assert "Traceback" not in plain_server.log()
