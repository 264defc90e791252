"""What the control groups of this process leave it: cores and memory. Linux, versions 1 and 2, nested.

A container's limit lies on any level: on its own group, or on one above it (a pod's, a slice's), so
each file is read on the way from the process's group to the root, and the strictest counts.
Sources: Linux, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
OWN_PAGES = Path("/proc/self/statm")
# More than any machine has: what version 1 writes where there is no limit is just below 2^63.
UNLIMITED_BYTES = 2**62


def num_cores(root: Path = ROOT, own_groups: Path = OWN_GROUPS) -> int:
    """Whole cores that this process may keep busy: those it may run on, or fewer where a quota is smaller.

    Half a core more than a whole number buys nothing: a thread too many is stopped with the others.
    """
    return max(1, math.floor(min(len(os.sched_getaffinity(0)), cpu_quota(root, own_groups))))


def cpu_quota(root: Path = ROOT, own_groups: Path = OWN_GROUPS) -> float:
    """Cores' worth of time that the groups grant; infinite without a limit."""
    quotas = [_quota_v2(folder) for folder in _folders("", root, own_groups)]
    quotas += [_quota_v1(folder) for folder in _folders("cpu", root, own_groups)]
    return min(quotas, default=math.inf)


def memory_limit_bytes(root: Path = ROOT, own_groups: Path = OWN_GROUPS) -> int:
    """The strictest limit; ``UNLIMITED_BYTES`` without one."""
    return min((limit for limit, _ in _memory(root, own_groups)), default=UNLIMITED_BYTES)


def free_memory_bytes(root: Path = ROOT, own_groups: Path = OWN_GROUPS, own_pages: Path = OWN_PAGES) -> int:
    """What the strictest level leaves; ``UNLIMITED_BYTES`` without a limit.

    Files in the page cache are free, as they are for the machine: weights that were only read would
    else fill the container. What this process holds is in use, whatever the group counts: pages that
    came from another group, or under version 1 before it was moved here, are counted there.
    """
    own = _own_bytes(own_pages)
    limits = ((limit, max(used, own)) for limit, used in _memory(root, own_groups) if limit < UNLIMITED_BYTES)
    return min((max(limit - used, 0) for limit, used in limits), default=UNLIMITED_BYTES)


def _own_bytes(own_pages: Path) -> int:
    """Memory of this process that no file holds: resident pages less the shared ones (proc_pid_statm(5))."""
    words = _read(own_pages).split()
    if len(words) < 3 or not all(word.isdecimal() for word in words[:3]):
        return 0
    return max(int(words[1]) - int(words[2]), 0) * os.sysconf("SC_PAGE_SIZE")


def _memory(root: Path, own_groups: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each level."""
    for folder in _folders("", root, own_groups):
        yield _limit(folder / "memory.max"), _used(folder, "memory.current", "")
        # Above this line the kernel throttles a group until it hardly runs.
        yield _limit(folder / "memory.high"), _used(folder, "memory.current", "")
    for folder in _folders("memory", root, own_groups):
        yield _limit(folder / "memory.limit_in_bytes"), _used(folder, "memory.usage_in_bytes", "total_")


def _limit(file: Path) -> int:
    text = _read(file)
    return min(int(text), UNLIMITED_BYTES) if text.isdecimal() else UNLIMITED_BYTES


def _used(folder: Path, file: str, prefix: str) -> int:
    used = _read(folder / file)
    if not used.isdecimal():
        return 0
    stat = dict(line.split(" ", 1) for line in _read(folder / "memory.stat").splitlines() if " " in line)
    cached = 0
    for name in ("active_file", "inactive_file"):
        with suppress(ValueError):
            cached += int(stat.get(prefix + name, 0))
    return max(int(used) - cached, 0)


def _quota_v2(folder: Path) -> float:
    """``cpu.max``: quota and period, or ``max`` and period."""
    words = _read(folder / "cpu.max").split()
    return _ratio(words[0], words[1]) if len(words) == 2 else math.inf


def _quota_v1(folder: Path) -> float:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float:
    """``max`` in version 2 and -1 in version 1 are no limit."""
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        return int(quota) / int(period)
    return math.inf


def _folders(controller: str, root: Path, own_groups: Path) -> Iterator[Path]:
    """The group's own folder and those above it, the root last; ``""`` is version 2.

    Inside a container the path may be the host's, which is not there: the root is then the container's own.
    """
    tops = [root, root / "unified"] if not controller else [root / name for name in _mounts(controller)]
    path = PurePosixPath(_own_path(controller, own_groups).lstrip("/"))
    for top in tops:
        for level in (path, *path.parents):
            if ".." not in level.parts and (folder := top / level).is_dir():
                yield folder


def _mounts(controller: str) -> tuple[str, ...]:
    """Version 1 mounts some controllers together."""
    return (controller, "cpu,cpuacct", "cpuacct,cpu") if controller == "cpu" else (controller,)


def _own_path(controller: str, own_groups: Path) -> str:
    """From lines ``number:controllers:path``; version 2 has the number 0 and names none."""
    for line in _read(own_groups).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            return path
    return "/"


def _read(file: Path) -> str:
    """Empty where there is no such file, or it may not be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
