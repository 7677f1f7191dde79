"""How much memory processes hold, how much there is, and whether the kernel killed for want of it; Linux tells."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


class Kills(NamedTuple):
    """Processes that the out-of-memory killer has ended so far; None where that cannot be read."""

    group: int | None
    """In the control group of this process, which is a container's if there is one."""
    machine: int | None


UNKNOWN = Kills(None, None)


def resident(pid: int) -> int | None:
    """Bytes of memory that a process holds; None if it is gone or this is not Linux."""
    with suppress(OSError, ValueError, IndexError):
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") or None
    return None


def available() -> int | None:
    """Bytes that all processes together may hold: the machine's, or less if the control group has a limit."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        for directory in (_group(), _CGROUPS):
            with suppress(OSError, ValueError):
                found.append(int((directory / name).read_text()))  # "max": no limit
    return min(found, default=None)


def kills() -> Kills:
    """How often the kernel has killed for want of memory."""
    files = [_group() / "memory.events", _CGROUPS / "memory.events", _CGROUPS / "memory" / "memory.oom_control"]
    group = [count for path in files if (count := _counter(path)) is not None]
    return Kills(max(group, default=None), _counter(_PROC / "vmstat"))


def _group() -> Path:
    with suppress(OSError):
        for line in (_PROC / "self" / "cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return _CGROUPS / line.removeprefix("0::").lstrip("/")
    return _CGROUPS


def _counter(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
