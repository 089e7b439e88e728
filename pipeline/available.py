"""How much memory this process may still use: the least that the system, its control groups and its own limits leave."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path


def available_memory(
    allowed: float | None = None, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes that this process may still use: `allowed` (GB) if given, else the least of what limits it.

    Those are the memory that the system can give, the limits of its control groups less what they use (files that are
    cached can be given back, and do not count) and the address space that it may have. None where nothing is known.
    """
    if allowed is not None:
        return int(allowed * 1e9)
    found = [_table(proc / "meminfo").get("MemAvailable:", -1) * 1024, *_group_rooms(proc, cgroup)]
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        found.append(max(0, most - _table(proc / "self/status").get("VmSize:", 0) * 1024))
    return min((size for size in found if size >= 0), default=None)


def _group_rooms(proc: Path, cgroup: Path) -> Iterator[int]:
    """Yield what is left to each control group, of either version, that this process is in."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = cgroup, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, names = cgroup / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = root / path.lstrip("/")  # in a container the path may be the host's; its own group is then the root
        for group in (folder, *folder.parents):
            limit, used = (_text(group / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():  # a group without a limit says "max"
                stat = _table(group / "memory.stat")
                cached = sum(stat.get(f"total_{name}", stat.get(name, 0)) for name in ("inactive_file", "active_file"))
                yield max(0, int(limit) - max(0, int(used) - cached))
            if group == root:
                break


def _table(path: Path) -> dict[str, int]:
    """Return the first number after the first word of each line."""
    words = [line.split() for line in _text(path).splitlines()]
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
