"""What must hold while a hostile input is read: a sentence or an answer, nothing written or read
outside, no code, an end.

Python tells an audit hook of every file it opens, changes or removes and of every process it
starts; what libraries do by themselves shows in the folder beside.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pipeline.errors import QfuseError

SECONDS = 20.0  # for one input; the slowest honest one takes a tenth of that
SECRET = 4242.4242  # what files beside the given folder hold: nothing read may show it
Case = Callable[[Random, Path], Callable[[], object]]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
}
_CODE = {
    *(
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "subprocess.Popen",
        "pty.spawn",
    ),
    *("socket.connect", "socket.bind", "webbrowser.open"),
}


class Breach(Exception):
    """A hostile input got what it must not get."""


class _Hang(BaseException):
    """Not an Exception, which the code under test might take for damage of its input."""


@dataclass
class _Watch:
    """What the hook sees while it is on."""

    folder: str = ""
    beside: str = ""
    seen: list[str] = field(default_factory=list)
    on: bool = False


_watch = _Watch()
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watch.on:
        return
    if event == "open":
        path, _, flags = arguments
        if not isinstance(path, str | bytes):
            return
        where = os.path.realpath(os.fsdecode(path)) if "\0" not in os.fsdecode(path) else ""
        if (
            flags & _WRITING
            and not where.startswith((_watch.folder, "/dev/null"))
            and not where.endswith(".pyc")
        ):
            _forbid(f"wrote outside: {where}")
        if where.startswith(_watch.beside):
            _forbid(f"read outside: {where}")
    elif event in _CHANGES:
        # What is renamed or taken away is the entry of a folder, where it is a link too, and not
        # what that leads to.
        split = [os.path.split(os.fsdecode(p)) for p in arguments if isinstance(p, str | bytes)]
        paths = [os.path.join(os.path.realpath(folder), name) for folder, name in split]
        if any(not p.startswith(_watch.folder) and "__pycache__" not in p for p in paths):
            _forbid(f"changed outside: {event} {paths}")
    elif event in _CODE:
        _forbid(f"ran code: {event} {arguments!r:.100}")


def _forbid(what: str) -> None:
    _watch.seen.append(what)
    raise PermissionError(what)


@contextmanager
def _watched(place: Path) -> Iterator[list[str]]:
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)  # it can never be taken away, so it is off but for these moments
        _hooked = True
    root = os.path.realpath(place)
    _watch.folder, _watch.beside, _watch.seen = f"{root}/given", f"{root}/beside", []
    _watch.on = True
    try:
        yield _watch.seen
    finally:
        _watch.on = False


@contextmanager
def _ending(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise _Hang

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def prepared(place: Path) -> Path:
    """Make the folder that is given and, beside it, files that are not; return the first."""
    (place / "beside").mkdir(parents=True)
    (place / "beside/secret").write_text(f"name: {SECRET}\n")
    (place / "given").mkdir()
    return place / "given"


def attempt(case: Case, rng: Random, place: Path, seconds: float = SECONDS) -> str:
    """Make an input of a kind in `place` (`prepared`), meet it, and return `answered` or `refused`.

    Raises Breach where anything came out but an answer or a QfuseError with a sentence.
    """
    call = case(rng, place / "given")
    before = _tree(place / "beside")
    outcome, problem = "answered", ""
    try:
        with _watched(place) as seen, _ending(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except QfuseError as refusal:
        outcome = "refused"
        problem = "" if str(refusal).strip() else f"{type(refusal).__name__} without a sentence"
    except _Hang:
        problem = f"no end after {seconds:g} s"
    except (Breach, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # some libraries raise what is no Exception
        problem = f"{type(error).__name__}: {error}"
    if problem := "; ".join(seen) or problem:
        raise Breach(problem[:300])
    if _tree(place / "beside") != before:
        raise Breach(f"something was left beside the given folder: {_tree(place / 'beside')}")
    return outcome


def _tree(folder: Path) -> list[tuple[str, int, int]]:
    found = sorted(folder.rglob("*"))
    return [(str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in found]
