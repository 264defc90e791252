"""The first event of a stream, looked at before the caller has any of it."""

from __future__ import annotations

import re

from ...client_errors import RequestError, StreamEndedError
from ...connection.exchange import Exchange
from ...error_reading import make_error
from ...fields import parsed

# Comments may come first; what is longer than this is no error.
MOST_BYTES = 65_536
_FIRST = re.compile(rb"(?:\A|[\r\n])data:([^\r\n]*)[\r\n]")


def error_at_once(exchange: Exchange) -> RequestError | None:
    """The error that the stream begins with; waits for the first event. Raises ``ClientError`` where none comes."""
    seen = exchange.look_ahead(lambda data: len(data) > MOST_BYTES or _FIRST.search(data) is not None)
    found = _FIRST.search(seen)
    if found is None and len(seen) <= MOST_BYTES:
        exchange.require_events()
        raise StreamEndedError("the stream ended before its first event")
    if found is None or b'"error"' not in found[1]:
        return None
    event = parsed(found[1], "an event of the stream")
    is_error = isinstance(event, dict) and event.get("error") is not None
    return make_error(event, hidden=exchange.hidden) if is_error else None
