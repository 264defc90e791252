from __future__ import annotations

import itertools

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from gunicorn.http.errors import NoMoreData, ParseException
from hypothesis import given
from hypothesis import strategies as st

from app.serve.incoming.buffering import MAX_HEAD_BYTES, RequestBuffer, Verdict
from app.serve.incoming.chunks import NUM_FREE_CHUNKS

MAX_BODY_BYTES = 1000
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /complete HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED_HEAD = b"POST /complete HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n"
CHUNKED = CHUNKED_HEAD + b"3;note=1\r\nhel\r\n2 \r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n"


def fed(*pieces: bytes) -> tuple[Verdict, RequestBuffer]:
    """The verdict after the last piece; earlier ones must ask for more."""
    buffer = RequestBuffer(MAX_BODY_BYTES)
    for piece in pieces[:-1]:
        assert buffer.feed(piece) is Verdict.MORE
    return buffer.feed(pieces[-1]), buffer


def parsed(buffer: RequestBuffer):
    """The request as Gunicorn's parser reads it, and its body."""
    request = next(get_parser(Config(), iter(buffer.pieces()), ("127.0.0.1", 1)))
    return request, request.body.read()


@pytest.mark.parametrize(("raw", "body"), [(GET, b""), (POST, b"hello"), (CHUNKED, b"hello")])
def test_a_request_is_complete_at_its_last_byte_wherever_it_is_split(raw, body):
    for at in range(1, len(raw)):
        verdict, buffer = fed(raw[:at], raw[at:])
        assert verdict is Verdict.COMPLETE
        assert parsed(buffer)[1] == body


@pytest.mark.parametrize(("raw", "body"), [(GET, b""), (POST, b"hello"), (CHUNKED, b"hello")])
def test_a_request_may_come_byte_by_byte(raw, body):
    verdict, buffer = fed(*(raw[at : at + 1] for at in range(len(raw))))
    assert verdict is Verdict.COMPLETE
    assert parsed(buffer)[1] == body


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), max_size=20), st.lists(st.integers(0, 900), max_size=12))
def test_any_chunking_and_any_splitting_give_the_body_back(body, sizes, cuts):
    raw, rest = CHUNKED_HEAD, body
    for size in sizes:
        if rest[:size]:
            raw += b"%x\r\n%b\r\n" % (len(rest[:size]), rest[:size])
        rest = rest[size:]
    raw += (b"%X\r\n%b\r\n" % (len(rest), rest) if rest else b"") + b"0\r\n\r\n"
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    verdict, buffer = fed(*(raw[start:end] for start, end in itertools.pairwise(edges)))
    assert verdict is Verdict.COMPLETE
    request, found = parsed(buffer)
    assert found == body
    assert ("CONTENT-LENGTH", str(len(body))) in request.headers
    assert "TRANSFER-ENCODING" not in dict(request.headers)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=20))
def test_no_bytes_whatsoever_raise(pieces):
    buffer = RequestBuffer(MAX_BODY_BYTES)
    for piece in pieces:
        if buffer.feed(piece) is not Verdict.MORE:
            buffer.pieces()
            return


def test_bytes_after_the_request_are_not_part_of_it():
    assert parsed(fed(POST + GET)[1])[1] == b"hello"
    assert parsed(fed(CHUNKED + GET)[1])[1] == b"hello"


def test_an_empty_line_may_come_first():
    verdict, buffer = fed(b"\r\n", POST)
    assert verdict is Verdict.COMPLETE
    assert parsed(buffer)[1] == b"hello"


def test_a_body_of_the_allowed_size_is_taken_and_one_byte_more_is_not():
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    assert fed(head % MAX_BODY_BYTES + b"x" * MAX_BODY_BYTES)[0] is Verdict.COMPLETE
    verdict, buffer = fed(head % (MAX_BODY_BYTES + 1))
    assert verdict is Verdict.BODY_TOO_LARGE
    assert ("CONTENT-LENGTH", str(MAX_BODY_BYTES + 1)) in parsed(buffer)[0].headers


def test_a_chunked_body_that_grows_too_large_is_cut_and_says_so_in_its_head():
    buffer = RequestBuffer(MAX_BODY_BYTES)
    assert buffer.feed(CHUNKED_HEAD) is Verdict.MORE
    assert buffer.feed(b"3e8\r\n" + b"x" * 1000 + b"\r\n") is Verdict.MORE
    assert buffer.feed(b"1\r\nx") is Verdict.BODY_TOO_LARGE
    request, body = parsed(buffer)
    assert ("CONTENT-LENGTH", str(len(body))) in request.headers
    assert len(body) > MAX_BODY_BYTES


def test_a_client_that_expects_it_is_told_to_continue():
    verdict, buffer = fed(EXPECTING % 5)
    assert (verdict, buffer.wants_continue) == (Verdict.MORE, True)
    assert buffer.feed(b"hello") is Verdict.COMPLETE
    request, body = parsed(buffer)
    assert body == b"hello"
    assert not request._expected_100_continue, "the interim answer would be sent twice"


@pytest.mark.parametrize("version", [b"1.0", b"1.1", b"1.2"])
@pytest.mark.parametrize("line", [b"Expect: 100-continue\r\n", b"EXPECT:\t100-Continue \r\n"])
def test_the_parser_never_hears_of_it_however_often_it_is_said(version, line):
    head = (EXPECTING % 5).replace(b"1.1", version).replace(b"Host", line + line + b"Host")
    verdict, buffer = fed(head + b"hello")
    assert verdict is Verdict.COMPLETE
    request, body = parsed(buffer)
    assert body == b"hello"
    assert not request._expected_100_continue


def test_a_client_is_not_told_to_continue_with_a_body_that_is_too_large():
    verdict, buffer = fed(EXPECTING % (MAX_BODY_BYTES + 1))
    assert (verdict, buffer.wants_continue) == (Verdict.BODY_TOO_LARGE, False)
    assert not parsed(buffer)[0]._expected_100_continue


def test_a_client_that_did_not_wait_is_not_told_to_continue():
    assert not fed(EXPECTING % 5 + b"he")[1].wants_continue
    assert not fed((EXPECTING % 5).replace(b"1.1", b"1.0"))[1].wants_continue


def test_a_head_without_end_is_refused():
    buffer = RequestBuffer(MAX_BODY_BYTES)
    assert buffer.feed(b"GET / HTTP/1.1\r\n") is Verdict.MORE
    assert buffer.feed(b"X: 1\r\n" * (MAX_HEAD_BYTES // 6 + 1)) is Verdict.HEAD_TOO_LARGE


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET /" + b"x" * 9000,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n",
    ],
)
def test_unusual_framing_goes_to_the_parser_at_once_and_it_refuses(raw):
    verdict, buffer = fed(raw)
    assert verdict is Verdict.COMPLETE
    with pytest.raises((ParseException, NoMoreData)):
        parsed(buffer)


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\nh\r\n",
        b"1_0\r\n",
        b"1\r\nhello\r\n",
        b"11111111111111111\r\n",
        b"1" * 2000,
        b"0\r\n" + b"X: 1\r\n" * 2000,
        b"1\r\nx\r\n" * (2 * NUM_FREE_CHUNKS),
    ],
)
def test_chunks_that_are_not_chunks_are_invalid(body):
    buffer = RequestBuffer(10 * NUM_FREE_CHUNKS)
    buffer.feed(CHUNKED_HEAD)
    assert buffer.feed(body) is Verdict.BODY_INVALID
