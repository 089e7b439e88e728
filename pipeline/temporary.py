"""Names of files that are being written: whoever finds one can tell whether its writer still runs."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

_NAME = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<process>[0-9]{1,9})-[0-9]+-(?P<name>.+)")
_DAY = 86400.0


@cache
def host() -> str:
    """Return a name (8 hex digits) for where a process number means one process: this start of this machine or container."""
    known = [platform.node()]
    with suppress(OSError):
        known += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("|".join(known).encode()).hexdigest()[:8]


def temporary(path: Path) -> Path:
    """Return a new hidden name beside `path`, for what is going to be `path`."""
    return path.with_name(f".{host()}-{os.getpid()}-{time.time_ns()}-{path.name}")


def being_written(file: Path) -> str:
    """Return the name that a temporary file is going to have; empty where whoever made it is no more.

    Whether a process of another host still runs cannot be asked: its files are taken for live ones for a day.
    """
    match = _NAME.fullmatch(file.name)
    if match is None:
        return ""
    try:
        if match["host"] != host():
            return match["name"] if time.time() - file.stat().st_mtime < _DAY else ""
        os.kill(int(match["process"]), 0)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except PermissionError:
        pass  # it runs, as another user's
    return match["name"]
