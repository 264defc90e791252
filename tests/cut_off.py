"""A network namespace with nothing but loopback, for programs that must work without a network.

The program itself calls ``bring_up_loopback`` first; nothing here needs pytest.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import shutil
import socket
import struct
import subprocess

# Where we are not root, the caller becomes it inside, if user namespaces are allowed.
CUT_OFF = ("unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)))
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
# Reserved for documentation (RFC 5737): no host of that name answers anywhere.
OUTSIDE = ("192.0.2.1", 80)


@functools.cache
def can_cut_off() -> bool:
    """Whether this machine lets us have such a namespace."""
    if shutil.which(CUT_OFF[0]) is None:
        return False
    return subprocess.run([*CUT_OFF, "true"], capture_output=True, check=False).returncode == 0


def bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def error_of_leaving() -> str | None:
    """The name of the error that a connection to the outside ends with."""
    with socket.socket() as sock:
        sock.settimeout(5)
        number = sock.connect_ex(OUTSIDE)
    return errno.errorcode.get(number)
