"""Options of gRPC's own servers and channels: sizes, pings, streams. Pure data.

Names are those of gRPC's channel arguments (grpc/impl/channel_arg_names.h).
"""

from __future__ import annotations

from app.core.settings import Settings

Options = list[tuple[str, int]]

# A message that is a little too large is told so in our words; gRPC ends the call of a larger one from its head alone.
SIZE_GRACE_BYTES = 65_536
# Calls that wait for their message or for a thread, beyond those that threads answer.
NUM_WAITING_CALLS = 1024
# Bit 0 is "identity": a compressed message could unfold to many times its size.
ONLY_UNCOMPRESSED = 1
# A client that pings more often than this is sent away after a few pings.
LEAST_PING_INTERVAL_MS = 10_000
MOST_PING_STRIKES = 2
# Callers that say nothing: are they still there? Also those who have never spoken HTTP/2.
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 30_000, 10_000
LONGEST_IDLE_MS = 600_000
# Of each worker: they are descriptors that HTTP needs, too. Gunicorn's own number for HTTP.
MOST_CONNECTIONS = 1000
# For TLS, and for the first bytes of a connection.
HANDSHAKE_MS = 10_000
MOST_METADATA_BYTES = 16_384


def server_options(settings: Settings) -> Options:
    """Of the port that everybody may call."""
    return [
        *_sizes(settings),
        ("grpc.so_reuseport", 1),
        ("grpc.compression_enabled_algorithms_bitset", ONLY_UNCOMPRESSED),
        ("grpc.max_concurrent_streams", NUM_WAITING_CALLS),
        ("grpc.max_metadata_size", MOST_METADATA_BYTES),
        ("grpc.http2.min_ping_interval_without_data_ms", LEAST_PING_INTERVAL_MS),
        ("grpc.http2.max_ping_strikes", MOST_PING_STRIKES),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_idle_ms", LONGEST_IDLE_MS),
        ("grpc.max_allowed_incoming_connections", MOST_CONNECTIONS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ]


def peer_server_options(settings: Settings) -> Options:
    """Of the socket file that other workers call."""
    return _sizes(settings)


# Of the channel to another worker: messages were bounded where they came in, answers are bounded by what is generated.
PEER_OPTIONS: Options = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def _sizes(settings: Settings) -> Options:
    return [
        ("grpc.max_receive_message_length", settings.max_body_bytes + SIZE_GRACE_BYTES),
        ("grpc.max_send_message_length", -1),
    ]
