"""Who may read and write the list of servers: a login, and TLS on both sides, with a real ZooKeeper."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from app.client.discovery.registry_address import registry_address
from app.client.discovery.server_entry import ServerEntry
from app.client.discovery.zookeeper_link import RegistryAwayError, ZooKeeperLink
from app.serve.registry.zookeeper_node import ZooKeeperNode
from tests.service.conftest import REPOSITORY
from tests.waiting import wait_until
from tests.zookeeper import ZooKeeper, missing

pytestmark = pytest.mark.slow
ENTRY = ServerEntry("abc", "http://127.0.0.1:1")
# How long those that are to be refused are given.
REFUSED_S = 3.0
TLS = """\
secureClientPort={port}
secureClientPortAddress=127.0.0.1
serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory
ssl.keyStore.location={folder}/server.pem
ssl.keyStore.type=PEM
ssl.trustStore.location={folder}/ca.pem
ssl.trustStore.type=PEM
"""
TRY = """
import os, sys, time
from app.client.discovery.registry_address import registry_address
from app.client.discovery.zookeeper_link import ZooKeeperLink
links = [ZooKeeperLink(registry_address(url)) for url in sys.argv[2:]]
end_s = time.monotonic() + 40.0
while not links[0].is_connected and time.monotonic() < end_s:
    time.sleep(0.05)
time.sleep(float(sys.argv[1]))
print(*(link.is_connected and not link.make_path("/forklift") for link in links), flush=True)
os._exit(0)
"""
# Debian's package leaves them out of its class path, and Netty needs them.
NETTY = [Path("/usr/share/java/netty-codec.jar"), Path("/usr/share/java/netty-resolver.jar")]


@pytest.fixture
def open_link() -> Iterator[object]:
    links = []

    def make(url: str) -> ZooKeeperLink:
        links.append(ZooKeeperLink(registry_address(url)))
        return links[-1]

    yield make
    for one in links:
        one.close()


def test_with_a_login_others_may_read_and_nothing_else(zookeeper, open_link):
    def node(login: str, name: str) -> ZooKeeperNode:
        link = open_link(zookeeper.url().replace("://", f"://{login}@"))
        wait_until(lambda: link.is_connected)
        return ZooKeeperNode(registry_address(zookeeper.url()), name, link)

    assert node("user:sesame", "abc").announce(ENTRY) == 1
    assert node("user:sesame", "xyz").announce(ServerEntry("xyz", "http://127.0.0.1:2")) == 1
    stranger = open_link(zookeeper.url())
    wait_until(lambda: stranger.is_connected)
    path = "/forklift/servers"
    names = stranger.children(path)
    assert len(names) == 2
    assert stranger.get(f"{path}/{names[0]}").startswith(b'{"format":1')
    for deed in (
        lambda: stranger.set(f"{path}/{names[0]}", b"x"),
        lambda: stranger.delete(f"{path}/{names[0]}"),
        lambda: stranger.make_ephemeral(f"{path}/s-evil-", b"x"),
    ):
        with pytest.raises(RegistryAwayError, match="NoAuthError"):
            deed()
    with pytest.raises(RegistryAwayError, match="NoAuthError"):
        node("other:sesame", "zzz").announce(ENTRY)


def test_with_tls_both_sides_show_a_certificate(tmp_path):
    if reason := missing() or next((f"there is no {jar}" for jar in NETTY if not jar.is_file()), None):
        pytest.skip(reason)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    write_pair(authority.issue_cert("127.0.0.1", "localhost"), tmp_path / "server.pem")
    write_pair(authority.issue_cert("client"), tmp_path / "client.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    zookeeper = ZooKeeper(tmp_path, config=TLS.replace("{folder}", str(tmp_path)), jars=NETTY)
    zookeeper.start(is_awaited=False)
    try:
        with_ca = f"{zookeeper.url()}&ca={tmp_path}/ca.pem"
        own = f"&cert={tmp_path}/client.pem&key={tmp_path}/client.pem"
        refused = [
            zookeeper.url(),
            with_ca,
            f"{zookeeper.url()}&ca={tmp_path}/other.pem{own}",
        ]
        assert connected_after(REFUSED_S, [with_ca + own, *refused]) == [True, False, False, False]
    finally:
        zookeeper.stop(signal.SIGKILL)


def connected_after(pause_s: float, urls: list[str]) -> list[bool]:
    """Which of them connect, so long after the first one did.

    In a process of its own: kazoo leaves the sockets of refused handshakes lying about.
    """
    command = [sys.executable, "-c", TRY, str(pause_s), *urls]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    return [word == "True" for word in done.stdout.split()]


def write_pair(made: trustme.LeafCert, path: Path) -> None:
    """Key and chain in one file; ZooKeeper reads keys as PKCS 8 only."""
    key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*form) + made.cert_chain_pems[0].bytes())
