"""What this process may still use: threads, and memory within the limits of all around it.

Limits are set by the system, by control groups and by the process; the tightest counts.

Libraries that get too little do not say so: they end the process, or wait for ever. So a command
whose limits are too tight is refused before it imports them.
"""

from __future__ import annotations

import _thread
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ResourceRefused

# Bytes of address space, much of it never used, as measured: of libraries that every verb imports,
# of all that computing imports, of a thread's stack and heap.
IMPORTED, COMPUTING, THREAD = 310_000_000, 1_250_000_000, 72_000_000
_FEWER = "--workers 1, OPENBLAS_NUM_THREADS=1"


def require_limits() -> None:
    """Raise ResourceRefused if this process may not even import what every verb needs."""
    threads = 2 * _library_threads()  # NumPy's and SciPy's pools
    require_address_space(IMPORTED + threads * THREAD)
    require_threads(threads)


def require_to_compute(workers: int | None) -> None:
    """Raise ResourceRefused if this process may not start what so many workers need.

    None stands for as many as there are cores.
    """
    threads = 2 * (workers or len(os.sched_getaffinity(0))) + 1
    require_address_space(COMPUTING + threads * THREAD)
    require_threads(threads)


def require_address_space(size: int) -> None:
    """Raise ResourceRefused if this process may have less address space than so many bytes."""
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY and most < size:
        raise ResourceRefused(
            f"about {size / 1e9:.2f} GB of address space are needed, and this process may have"
            f" {most / 1e9:.2f} (`ulimit -v`): raise the limit, or use fewer threads ({_FEWER})."
        )


def require_threads(count: int) -> None:
    """Raise ResourceRefused if this process may not have so many more threads at once: it tries.

    Where address space is limited it does not, because each thread keeps a heap of it; that limit
    is the narrower one.
    """
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return
    gate, started = _thread.allocate_lock(), 0

    def wait() -> None:
        with gate:
            pass

    gate.acquire()
    try:
        while started < count:
            _thread.start_new_thread(wait, ())
            started += 1
    except RuntimeError:
        raise ResourceRefused(
            f"about {count} threads are needed, and the system gives this process {started}"
            " (`ulimit -u`, or the limit of its container): raise the limit, or use fewer threads"
            f" ({_FEWER})."
        ) from None
    finally:
        gate.release()


def available_memory(
    allowed: float | None = None, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return the bytes that this process may still use.

    They are `allowed` (GB) if given, else what the tightest limit leaves: the memory that the
    system can give, the limits of the control groups less what they use (cached files do not count,
    they can be given back), and the address space that is left. None if nothing is known.
    """
    if allowed is not None:
        return int(allowed * 1e9)
    found = [_table(proc / "meminfo").get("MemAvailable:", -1) * 1024, *_group_rooms(proc, cgroup)]
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        found.append(max(0, most - _table(proc / "self/status").get("VmSize:", 0) * 1024))
    return min((size for size in found if size >= 0), default=None)


def _library_threads() -> int:
    """Return how many threads a library for matrices starts."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdecimal():
            return max(1, int(os.environ[name]))
    return len(os.sched_getaffinity(0))


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
        # in a container the path may be the host's; its own group is then the root
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            limit, used = (_text(group / name).strip() for name in names)
            if limit.isdigit() and used.isdigit():  # a group without a limit says "max"
                stat = _table(group / "memory.stat")
                cached = sum(
                    stat.get(f"total_{name}", stat.get(name, 0))
                    for name in ("inactive_file", "active_file")
                )
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
