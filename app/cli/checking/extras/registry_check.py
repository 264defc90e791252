"""The registry in which the server would announce itself: its URL, kazoo, whether it answers."""

from __future__ import annotations

import time

from app.cli.checking.findings import Finding, Findings, Situation
from app.client.client_errors import ClientError
from app.client.discovery.registry_address import ZooKeeperAddress, registry_address
from app.client.discovery.zookeeper_link import ZooKeeperLink
from app.client.discovery.zookeeper_list import SERVERS
from app.core.errors import StartError

LIMIT_S = 5.0
POLL_S = 0.05


def check(situation: Situation) -> Findings:
    """Nothing where no registry is set."""
    if not situation.settings.registry:
        return
    # Only for servers that announce themselves.
    from app.serve.registry.announcing import check_registry

    try:
        check_registry(situation.settings)
    except StartError as error:
        yield Finding("registry", "fault", str(error), "see docs/scale.md")
        return
    address = registry_address(situation.settings.registry)
    assert isinstance(address, ZooKeeperAddress)
    yield ask(address)


def ask(address: ZooKeeperAddress) -> Finding:
    """Whether it answers, and how many servers it holds."""
    hosts = ", ".join(address.hosts)
    link = ZooKeeperLink(address)
    try:
        end_s = time.monotonic() + LIMIT_S
        while not link.is_connected and time.monotonic() < end_s:
            time.sleep(POLL_S)
        names = link.children(address.path + SERVERS) or []
    except ClientError as error:
        text = f"ZooKeeper at {hosts} does not answer: {error}"
        return Finding("registry", "warning", text, "the server would start and serve; clients would not find it")
    finally:
        link.close()
    return Finding("registry", "ok", f"ZooKeeper at {hosts} answers and holds {len(names)} servers")
