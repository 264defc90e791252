"""A server in a registry: what it says, who of its workers does, and that it is written on a change only."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from app.client.discovery.registry_address import ZooKeeperAddress
from app.client.discovery.server_entry import ServerEntry, entry_of
from app.client.discovery.zookeeper_link import RegistryAwayError
from app.core.errors import StartError
from app.core.settings import load_settings
from app.serve.board.slot_board import SlotBoard
from app.serve.registry import announcing
from app.serve.registry.announcement import Announcement
from app.serve.registry.own_address import own_grpc, own_url
from app.serve.registry.registrar import LEAST_BETWEEN_S, Registrar
from app.serve.registry.registration import Registration
from app.serve.registry.zookeeper_node import ZooKeeperNode
from tests.memory_registry import MemoryLink, MemoryTree

ADDRESS = ZooKeeperAddress(("h:2181",))
ENTRY = ServerEntry("abc", "http://127.0.0.1:5000", "loading")
READY = replace(ENTRY, state="ready")


@pytest.fixture
def log():
    with capture_logs() as lines:
        yield lines


def settings_with(**settings):
    return load_settings({f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()})


@pytest.fixture
def tree():
    return MemoryTree()


@pytest.fixture
def node(tree):
    return ZooKeeperNode(ADDRESS, "abc", MemoryLink(tree))


def entries(tree):
    return [entry_of(data) for path, (data, _) in tree.nodes.items() if path.startswith("/forklift/servers/")]


# the node


def test_an_entry_is_written_when_it_changed_and_at_no_other_time(tree, node):
    assert [node.announce(one) for one in (ENTRY, ENTRY, READY, READY, READY)] == [1, 0, 1, 0, 0]
    assert entries(tree) == [READY]


def test_a_node_comes_back_after_its_session_ended(tree, node):
    node.announce(READY)
    tree.expire(node._link.session)
    node._link.session = object()
    assert node.announce(READY) == 1
    assert entries(tree) == [READY]


def test_a_node_that_somebody_removed_comes_back(tree, node):
    node.announce(READY)
    node.announce(READY)
    tree.nodes.clear()
    node._link.watches[-1](SimpleNamespace(type="DELETED"))
    assert node.announce(READY) == 1
    assert entries(tree) == [READY]


def test_an_orphan_of_a_lost_create_is_found_and_removed(tree, node):
    tree.nodes["/forklift/servers"] = (b"", None)
    node._link.loses_next_answer = True
    with pytest.raises(RegistryAwayError):
        node.announce(ENTRY)
    assert len(entries(tree)) == 1
    node.announce(READY)
    assert entries(tree) == [READY]


def test_a_change_whose_answer_was_lost_is_written_again(tree, node):
    node.announce(ENTRY)
    node._link.loses_next_answer = True
    with pytest.raises(RegistryAwayError):
        node.announce(READY)
    assert node.announce(READY) == 1


def test_the_next_worker_takes_the_place_of_one_whose_session_still_lives(tree, node):
    node.announce(READY)
    successor = ZooKeeperNode(ADDRESS, "abc", MemoryLink(tree))
    other = ZooKeeperNode(ADDRESS, "xyz", MemoryLink(tree))
    other.announce(replace(READY, id="xyz"))
    successor.announce(READY)
    assert sorted(one.id for one in entries(tree)) == ["abc", "xyz"]


def test_closing_takes_the_entry_out(tree, node):
    node.announce(READY)
    node.close()
    assert entries(tree) == []
    assert node._link.is_closed


def test_closing_while_zookeeper_is_away_raises_nothing(node):
    node.announce(READY)
    node._link.is_connected = False
    node.close()
    assert node._link.is_closed


# who leads


def in_child(action):
    """What ``action`` says in a process of its own, which then ends as if killed."""
    reads, writes = os.pipe()
    if not (pid := os.fork()):
        os.write(writes, b"1" if action() else b"0")
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as said:
        answer = said.read() == b"1"
    os.waitpid(pid, 0)
    return answer


def another_worker(registration):
    """The same registration in a process that was forked before anybody led."""
    found = copy.copy(registration)
    found._held = None
    return found


def nobody_is_silent(_pid):
    return False


def test_one_process_leads_until_it_ends():
    registration = Registration()
    assert in_child(lambda: another_worker(registration).is_mine(nobody_is_silent))
    assert registration.is_mine(nobody_is_silent)
    assert not in_child(lambda: another_worker(registration).is_mine(nobody_is_silent))
    assert registration.is_mine(nobody_is_silent)


def test_a_leader_that_does_not_run_is_passed_over_and_notices():
    registration = Registration()
    assert registration.is_mine(nobody_is_silent)

    def takes_over():
        other = another_worker(registration)
        return not other.is_mine(lambda pid: True) and other.is_mine(nobody_is_silent)

    assert in_child(takes_over)
    assert registration._shared.term == 1
    assert registration._held == 0
    assert registration.is_mine(nobody_is_silent)
    assert registration._held == 1


# the thread


class World:
    """A worker of two slots whose registrar is turned by hand."""

    def __init__(self, tree):
        self.board = SlotBoard([(), ()])
        self.slots = [self.board.lease(os.getpid()), self.board.lease(os.getpid() + 1)]
        self.link = MemoryLink(tree)
        self.registration = Registration()
        handles = [SimpleNamespace(task="classify")]
        context = SimpleNamespace(board=self.board, inference=SimpleNamespace(handles=handles))
        settings = settings_with(max_queue=4, zone="r1", weight=50, model_name="m")
        announcement = Announcement(settings, "abc", "http://h:1", 2)
        self.registrar = Registrar(
            context, self.registration, announcement, lambda: ZooKeeperNode(ADDRESS, "abc", self.link)
        )
        self.now_s = 100.0

    def turn(self, after_s=LEAST_BETWEEN_S):
        self.now_s += after_s
        self.registrar.turn(self.now_s)


@pytest.fixture
def world(tree):
    return World(tree)


def test_a_server_says_what_it_is(tree, world):
    world.board.set_state(world.slots[0], "ready")
    world.turn()
    (entry,) = entries(tree)
    assert (entry.id, entry.http, entry.state, entry.models) == ("abc", "http://h:1", "ready", ("m",))
    assert entry.tasks == ("classify",)
    assert (entry.places, entry.weight, entry.zone, entry.grpc) == (2 * 1 + 4, 50, "r1", None)


def test_work_in_hand_is_never_written(tree, world):
    world.board.set_state(world.slots[0], "ready")
    world.turn()
    num_writes = tree.num_writes
    for num_running in range(50):
        with world.board.locked() as rows:
            rows[0].num_running, rows[0].num_waiting = num_running, num_running
        world.turn()
    assert tree.num_writes == num_writes
    assert world.registration.num_writes == 1


def test_a_server_is_ready_while_one_worker_is_and_says_so_when_none_is(tree, world):
    for states, told in [
        (("ready", "loading"), "ready"),
        (("failed", "ready"), "ready"),
        (("failed", "draining"), "draining"),
    ]:
        for slot, state in zip(world.slots, states, strict=True):
            with world.board.locked() as rows:
                rows[slot].state = 0
            world.board.set_state(slot, state)
        world.turn()
        assert [one.state for one in entries(tree)] == [told]


def test_bad_news_is_told_at_once_and_good_news_soon(tree, world):
    world.board.set_state(1, "failed")
    world.board.set_state(0, "ready")
    world.turn()
    world.board.set_state(0, "failed")
    world.turn(0.01)
    assert entries(tree)[0].state == "failed"
    world.board.set_state(0, "ready")
    world.turn(0.01)
    assert entries(tree)[0].state == "failed"
    world.turn()
    assert entries(tree)[0].state == "ready"


def test_a_registry_that_is_away_is_tried_again_and_told_of_once(tree, world, log):
    world.link.is_connected = False
    for _ in range(8):
        world.turn()
    assert not world.registration.is_connected
    world.link.is_connected = True
    world.turn()
    assert world.registration.is_connected
    assert [one["event"] for one in log] == ["registry_away", "registry_announced"]
    assert len(entries(tree)) == 1


def test_a_connection_that_takes_a_moment_is_no_registry_that_is_away(tree, world, log):
    world.link.is_connected = False
    world.turn()
    world.link.is_connected = True
    world.turn()
    assert [one["event"] for one in log] == ["registry_announced"]


def test_a_worker_that_leads_no_longer_takes_its_entry_out(tree, world, monkeypatch):
    world.turn()
    monkeypatch.setattr(Registration, "is_mine", lambda *_: False)
    world.turn()
    assert entries(tree) == []
    assert world.link.is_closed


# before the start


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"registry": "etcd://h"}, "is not a registry's URL"),
        ({"registry": "forklift://a:1"}, "a list is for clients"),
        ({"registry": "zookeeper://h", "bind": "unix:/tmp/x.sock"}, "FORKLIFT_ANNOUNCE_URL is needed"),
        ({"registry": "zookeeper://h", "announce_url": "ftp://x"}, "http: 'ftp://x' is not a URL"),
        ({"registry": "zookeeper://h", "zone": "a\tb"}, "zone is no text"),
        ({"registry": "zookeeper://h?ca=/none"}, "cannot be used: No such file"),
        ({"registry": "zookeeper://h?ca=setup.cfg"}, "ca, cert or key of the registry cannot be used"),
    ],
)
def test_what_cannot_be_announced_stops_the_start_with_one_line(given, line):
    with pytest.raises(StartError, match=line) as caught:
        announcing.check_registry(settings_with(**given))
    assert str(caught.value).count("\n") == 0


def test_without_kazoo_the_start_says_what_to_install(monkeypatch):
    monkeypatch.setattr("app.client.discovery.zookeeper_link.find_spec", lambda name: None)
    with pytest.raises(StartError, match=r"needs kazoo: pip install 'forklift-serve\[zookeeper\]'"):
        announcing.check_registry(settings_with(registry="zookeeper://h"))
    announcing.check_registry(settings_with())


def test_the_address_comes_from_where_the_server_listens():
    settings = settings_with(path_prefix="/llm")
    assert own_url(settings, [("10.0.0.5", 5000)], ()) == "http://10.0.0.5:5000/llm"
    assert own_url(settings, ["/run/x.sock", ("::1", 80, 0, 0)], ()) == "http://[::1]:80/llm"
    assert own_url(settings, [("0.0.0.0", 80)], ["127.0.0.1:2181"]) == "http://127.0.0.1:80/llm"
    assert own_url(settings, ["/run/x.sock"], ()) is None
    assert own_url(settings_with(announce_url="https://x"), [("10.0.0.5", 5000)], ()) == "https://x"


@pytest.mark.parametrize(
    ("grpc_bind", "told"),
    [("", None), ("10.0.0.5:50051", "10.0.0.5:50051"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::1]:2", "[::1]:2")],
)
def test_the_grpc_port_is_announced_where_there_is_one(grpc_bind, told):
    assert own_grpc(settings_with(grpc_bind=grpc_bind), ["127.0.0.1:2181"]) == told
