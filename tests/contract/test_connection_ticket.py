"""A connection counts as load by itself until its request has a place, whichever thread opens the request."""

from __future__ import annotations

import socket

import pytest

from app.serve.board.admission import ConnectionTicket
from app.serve.connections.link import Link
from app.serve.worker import ForkliftWorker, ThreadWorker
from tests.contract.conftest import client_of
from tests.contract.doubles import Gate, World


@pytest.fixture
def link(world: World):
    ours, theirs = socket.socketpair()
    with world.board.locked() as rows:
        ticket = ConnectionTicket(world.board, rows[0])
    with ours, theirs:
        yield Link(ours, lambda _: None, ticket)


def counts(world: World) -> tuple[int, int, int]:
    row = world.board.rows()[0]
    return row.num_connections, row.num_waiting, row.num_running


@pytest.mark.parametrize("field", [{}, {"stream": True}, {"stream": True, "regex": "a+"}], ids=str)
def test_a_request_that_runs_is_counted_once(world, link, field):
    gate = Gate()
    world.inference.script = ["a", gate]
    assert counts(world) == (1, 0, 0)
    seen: list[tuple[int, int, int]] = []
    submit = world.inference.submit

    def look(job: object) -> None:
        seen.append(counts(world))
        submit(job)

    world.inference.submit = look
    gate.set()
    answer = client_of(world).post(
        "/complete", json={"prompt": "x", **field}, environ_overrides={"gunicorn.socket": link}
    )
    assert answer.status_code == 200
    answer.close()
    assert seen == [(0, 1, 0)]


def test_a_request_without_a_place_leaves_its_connection_counted(world, link):
    assert client_of(world).get("/livez", environ_overrides={"gunicorn.socket": link}).status_code == 200
    assert counts(world) == (1, 0, 0)


def test_a_connection_counts_no_more_once_it_is_served(world, link, monkeypatch):
    seen = []
    monkeypatch.setattr(ThreadWorker, "handle", lambda worker, conn: seen.append(counts(world)))
    connection = type("Connection", (), {"sock": link})
    ForkliftWorker.handle(object.__new__(ForkliftWorker), connection)
    assert seen == [(1, 0, 0)]
    assert counts(world) == (0, 0, 0)
