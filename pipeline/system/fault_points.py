"""Faults on demand, so that tests can stop a process at a named point.

Without QFUSE_FAULT nothing here does anything.

    QFUSE_FAULT="commit:before_link:embed:3=kill"

kills the process when it is about to link an artifact of `embed` for the third time; `*` stands for
any name, commas separate several. Actions: kill, segv, interrupt (signals to this process), raise,
memory (exceptions), or the name of an error of the system such as enospc, erofs, eio.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

_SIGNALS = {"kill": signal.SIGKILL, "segv": signal.SIGSEGV, "interrupt": signal.SIGINT}
_passed: Counter[tuple[str, str]] = Counter()


def at(point: str, name: str) -> None:
    """Pass a named point, such as `commit:before_link`; do what QFUSE_FAULT asks for there."""
    wanted = os.environ.get("QFUSE_FAULT")
    if not wanted:
        return
    due = []
    for fault in wanted.split(","):
        where, _, action = fault.strip().partition("=")
        place, count = where.rsplit(":", 1)
        if place not in (f"{point}:{name}", f"{point}:*"):
            continue
        _passed[fault, place] += 1
        if _passed[fault, place] == int(count):
            due.append((action, where))
    for action, where in due:
        _do(action, where)


def _do(action: str, where: str) -> None:
    if action in _SIGNALS:
        # to this very thread, because another one might take it too late
        signal.raise_signal(_SIGNALS[action])
    elif action == "raise":
        raise RuntimeError(f"fault at {where}")
    elif action == "memory":
        raise MemoryError(f"fault at {where}")
    else:
        number = getattr(errno, action.upper())
        raise OSError(number, os.strerror(number))
