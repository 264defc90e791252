"""Which worker a call is for: the one with the fewest sequences and calls, whatever connections are open."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from app.core.settings import Settings
from app.rpc.peers import Peers
from app.serve.board.admission import Admission, ConnectionTicket
from app.serve.board.slot_board import SlotBoard

OWN, OTHER = 101, 102


@pytest.fixture
def board():
    board = SlotBoard([(), ()])
    for pid in (OWN, OTHER):
        board.set_state(board.lease(pid), "ready", 1.0)
    return board


@pytest.fixture
def peers(board, tmp_path):
    context = SimpleNamespace(
        slot=0, board=board, admission=Admission(Settings(max_batch_size=1, max_queue=8), board, 0)
    )
    made = Peers(context, tmp_path, None)
    made.socket_of(OTHER).touch()
    return made


def add(board, slot, **counts):
    with board.locked() as rows:
        for name, number in counts.items():
            setattr(rows[slot], name, getattr(rows[slot], name) + number)


def test_a_call_waits_behind_no_sequence_because_of_others_probes(board, peers):
    add(board, 0, num_running=1)
    add(board, 1, num_connections=3)
    assert peers.choose() == (OTHER, None)


def test_between_equal_workers_connections_decide(board, peers):
    add(board, 0, num_connections=2)
    add(board, 1, num_connections=1)
    assert peers.choose() == (OTHER, None)


def test_a_call_that_has_no_place_yet_counts_until_its_ticket_is_dropped(board, peers):
    [pid, ticket] = peers.choose()
    assert (pid, type(ticket)) == (None, ConnectionTicket)
    assert peers.choose() == (OTHER, None), "one call here, none there"
    ticket.drop()
    ticket.drop()
    assert peers.choose()[0] is None, "none here, one on its way there"


def test_what_was_sent_and_is_not_counted_there_yet_counts(board, peers):
    add(board, 0, num_running=2)
    assert [peers.choose()[0] for _ in range(3)] == [OTHER, OTHER, None]
