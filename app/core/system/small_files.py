"""Reads the small files that an operator or a model folder names, so that none of them can hang or flood the server.

A pipe without a writer blocks whoever opens it, a device has no end: what is not a regular file is
refused before it is read, and so is what is larger than it can be. Any process and thread; no torch.
"""

from __future__ import annotations

import errno
import os
import stat
from io import FileIO
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_small_file(path: str | Path, max_bytes: int) -> bytes:
    """The content of a regular file of at most ``max_bytes``. Raises ``OSError``; see ``why_unreadable``."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes")
    return content


def open_regular(path: str | Path) -> FileIO:
    """``path`` open for reading, unbuffered. Raises ``OSError`` where it is not a regular file, without waiting."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    if kind != stat.S_IFREG:
        os.close(fd)
        if kind == stat.S_IFDIR:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise OSError(errno.EINVAL, f"it is {KINDS.get(kind, 'not a regular file')}")
    return FileIO(fd, closefd=True)


def why_unreadable(path: str | Path, error: OSError) -> str:
    """The reason for a person: a link that leads nowhere, the user who may not read, or the system's words."""
    path = Path(path)
    if error.errno == errno.ENOENT and path.is_symlink():
        return f"it is a link to {path.readlink()}, which does not exist"
    if error.errno == errno.EACCES:
        return f"permission denied for user {os.geteuid()}"
    return error.strerror or str(error)
