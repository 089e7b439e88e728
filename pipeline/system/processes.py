"""Who writes: a name for a process, whether it still runs, and file names that tell the writer."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_PROCESS = re.compile(r"(?P<host>[0-9a-f]{8})-(?P<pid>[1-9][0-9]{0,8})-(?P<start>[0-9]{1,20})")
_NAME = re.compile(rf"\.(?P<process>{_PROCESS.pattern})-[0-9]+-(?P<name>.+)", re.DOTALL)
_DAY = 86400.0
# so that no name comes twice, whatever the clock does
_number = itertools.count(time.time_ns())


@cache
def host() -> str:
    """Return a name (8 hex digits) for the start of this machine or container.

    Within it a process number means one process.
    """
    known = [platform.node()]
    with suppress(OSError):
        known += [
            Path("/proc/sys/kernel/random/boot_id").read_text(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return hashlib.sha256("|".join(known).encode()).hexdigest()[:8]


def process() -> str:
    """Return this process's name, `host-pid-start`.

    Another process that is given the same number later has another name.
    """
    return f"{host()}-{os.getpid()}-{_state(os.getpid())[1]}"


def alive(process: str) -> bool | None:
    """Whether the process of that name still runs; None if it cannot be asked, being elsewhere.

    It is elsewhere if it is on another host or in another container.
    """
    match = _PROCESS.fullmatch(process)
    if match is None:
        return False
    if match["host"] != host():
        return None
    try:
        os.kill(int(match["pid"]), 0)
    except PermissionError:
        pass  # it runs, and is another user's
    except (OSError, OverflowError):
        return False
    state, start = _state(int(match["pid"]))
    # A zombie writes no more. Where nothing can be read about it, the number has to do.
    return state not in ("Z", "X") and (start == match["start"] or "0" in (start, match["start"]))


def temporary(path: Path) -> Path:
    """Return a new hidden name beside `path`, to write what becomes `path`.

    Of a long name only the end is kept.
    """
    name = os.fsdecode(os.fsencode(path.name)[-150:])
    return path.with_name(f".{process()}-{next(_number)}-{name}")


def being_written(file: Path) -> str:
    """Return the name that a temporary file will get; empty if the process that made it is dead.

    Files of processes that cannot be asked are taken for live ones for a day.
    """
    match = _NAME.fullmatch(file.name)
    if match is None:
        return ""
    runs = alive(match["process"])
    return match["name"] if runs or (runs is None and not untouched(file)) else ""


def abandoned(file: Path, path: Path) -> bool:
    """Whether a file is what a process that is dead has left of writing `path`."""
    match = _NAME.fullmatch(file.name)
    return match is not None and match["name"] == path.name and not being_written(file)


def untouched(file: Path) -> bool:
    """Whether a file has not been written for a day, or is gone."""
    try:
        return time.time() - file.stat().st_mtime > _DAY
    except OSError:
        return True


def _state(pid: int) -> tuple[str, str]:
    """Return a process's state (a letter) and its start, in clock ticks since the machine's.

    They are "" and "0" where the system does not say.
    """
    try:
        # proc(5): the name, in parentheses, may hold anything; the state is the 3rd field and the
        # start the 22nd.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), str(int(fields[19]))
    except (OSError, ValueError, IndexError):
        return "", "0"
