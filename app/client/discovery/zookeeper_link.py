"""A connection to ZooKeeper, by kazoo, which is imported here and only where it is used.

Used by a server's worker and by clients. Every call is bounded in time, and what goes wrong is one kind of error.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from ..client_errors import ClientError, SetupError
from .registry_address import ZooKeeperAddress

CALL_LIMIT_S = 3.0
LONGEST_PAUSE_S = 2.0
# ZooKeeper refuses whoever has seen later changes than itself, without a word, as after the loss of its data. So one
# who is away for longer than any session begins anew.
SESSIONS_UNTIL_ANEW = 3.0


class RegistryAwayError(ClientError):
    """The registry does not answer, or refuses."""


def require_kazoo() -> None:
    """Raise ``SetupError`` where the extra is not installed."""
    if find_spec("kazoo") is None:
        raise SetupError("zookeeper:// needs kazoo: pip install 'forklift-serve[zookeeper]'")


def require_usable(address: ZooKeeperAddress) -> None:
    """Raise ``SetupError`` where nothing could be reached with it: no kazoo, no certificates."""
    require_kazoo()
    if address.ca is None:
        return
    try:
        context = ssl.create_default_context(cafile=address.ca)
        if address.cert is not None:
            # Asked for a password OpenSSL would ask the terminal.
            context.load_cert_chain(address.cert, address.key, password="")
    except OSError as failure:
        reason = failure.strerror or str(failure) or type(failure).__name__
        raise SetupError(f"ca, cert or key of the registry cannot be used: {reason}") from None


class ZooKeeperLink:
    """Connects in the background, again and again, until closed. ``on_change`` is called on a thread of kazoo's, which
    must not wait, whenever the connection comes or goes."""

    def __init__(self, address: ZooKeeperAddress, on_change: Callable[[], None] = lambda: None):
        require_usable(address)
        from kazoo.exceptions import KazooException, NodeExistsError, NoNodeError

        self._address, self._on_change = address, on_change
        self._failures, self._no_node, self._exists = KazooException, NoNodeError, NodeExistsError
        self._connect()

    def _connect(self) -> None:
        from kazoo.client import KazooClient
        from kazoo.retry import KazooRetry

        address = self._address
        self._seen_at_s = time.monotonic()
        self._zk = KazooClient(
            ",".join(address.hosts),
            timeout=address.session_s,
            connection_retry=KazooRetry(max_tries=-1, max_delay=LONGEST_PAUSE_S),
            auth_data=[("digest", address.login)] if address.login else None,
            default_acl=_acl(address.login),
            use_ssl=address.ca is not None,
            ca=address.ca,
            certfile=address.cert,
            keyfile=address.key,
            check_hostname=True,
            logger=_silent_logger(),
        )
        self._zk.add_listener(self._note_state)
        self._zk.start_async()

    @property
    def is_connected(self) -> bool:
        return bool(self._zk.connected)

    @property
    def session(self) -> object:
        """What names the session; another value: all ephemeral nodes of the last one are gone, or will be."""
        return self._zk.client_id

    def children(self, path: str, watch: Callable[[Any], None] | None = None) -> list[str] | None:
        """Names, or None where there is no such path."""
        found: list[str] | None = self._call(self._zk.get_children_async, path, watch=watch)
        return found

    def get(self, path: str, watch: Callable[[Any], None] | None = None) -> bytes | None:
        found = self._call(self._zk.get_async, path, watch=watch)
        return None if found is None else bytes(found[0])

    def exists(self, path: str, watch: Callable[[Any], None] | None = None) -> bool:
        return self._call(self._zk.exists_async, path, watch=watch) is not None

    def make_path(self, path: str) -> None:
        """With all above it; what is there already is fine."""
        self._call(self._zk.ensure_path_async, path)

    def make_ephemeral(self, prefix: str, data: bytes) -> str:
        """A node that lives as long as the session, with a number behind ``prefix``."""
        return str(self._call(self._zk.create_async, prefix, data, ephemeral=True, sequence=True))

    def set(self, path: str, data: bytes) -> bool:
        """False where there is no such node."""
        return self._call(self._zk.set_async, path, data) is not None

    def delete(self, path: str) -> None:
        self._call(self._zk.delete_async, path)

    def close(self) -> None:
        """End the session, with what is ephemeral of it."""
        _end(self._zk, self._note_state)

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """None where the node is not there. Raises ``RegistryAwayError``."""
        if not self.is_connected:
            self._begin_anew_if_stuck()
            raise RegistryAwayError("there is no connection")
        self._seen_at_s = time.monotonic()
        try:
            return function(*arguments, **options).get(timeout=CALL_LIMIT_S)
        except (self._no_node, self._exists):
            return None
        except (self._failures, self._zk.handler.timeout_exception) as failure:
            raise RegistryAwayError(type(failure).__name__) from None

    def _begin_anew_if_stuck(self) -> None:
        if time.monotonic() - self._seen_at_s > SESSIONS_UNTIL_ANEW * self._address.session_s:
            ending = threading.Thread(target=_end, args=(self._zk, self._note_state), daemon=True)
            ending.start()
            self._connect()

    def _note_state(self, _state: object) -> None:
        self._on_change()


def _end(client: Any, listener: Callable[[object], None]) -> None:
    """Waits for kazoo's own threads, for seconds where ZooKeeper does not answer."""
    client.remove_listener(listener)
    # Of a client that never reached anybody, kazoo raises what it met; there is nobody to tell.
    with suppress(Exception):
        client.stop()
        client.close()


def _acl(login: str | None) -> Any:
    """With a login, others may read and nothing else; without, ZooKeeper's own default."""
    if login is None:
        return None
    from kazoo.security import READ_ACL_UNSAFE, make_digest_acl

    user, _, password = login.partition(":")
    return [make_digest_acl(user, password, all=True), *READ_ACL_UNSAFE]


def _silent_logger() -> logging.Logger:
    """kazoo tells of each attempt; what matters is told by whoever uses the link."""
    logger = logging.getLogger("forklift.zookeeper")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger
