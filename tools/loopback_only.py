"""Runs a command in a network namespace of its own, with nothing but a loopback device: Ray listens on every address.

``python -m tools.loopback_only CMD...``; needs Linux and root (or a user namespace). Ends with 75 where it cannot.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from typing import NoReturn

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1
# As sysexits.h has it: a failure that may not last.
CANNOT = 75


def enter() -> None:
    """Move this thread, and what it starts, into a new namespace. Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def is_inside() -> bool:
    """Whether there is no device but loopback."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def main(command: list[str]) -> NoReturn:
    """Become ``command``."""
    try:
        enter()
    except OSError as error:
        print(f"no network namespace: {error}", file=sys.stderr)
        sys.exit(CANNOT)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
