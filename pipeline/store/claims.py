"""Who computes which shard right now, and which rows are in flight: files in STORE/journal/.

The file is a claim: two runs on one store do not compute the same shard at the same time. It also
outlives its writer: if a process died without a word, one of the rows that were in flight may have
killed it.

    journal/<key>       first line: the process; then "+ FIRST STOP" where rows begin, "- FIRST
                        STOP" where they have ended

A claim counts as long as its process lives. Of a process on another machine that cannot be asked:
its claim is honoured until the file has not been touched for two minutes, by our own clock.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from pipeline.system.atomic_text import make_way, replace_text
from pipeline.system.processes import alive, process, temporary
from pipeline.system.regular_file import read_regular

BEAT_SECONDS = 15.0  # how often the claims of a living process are touched
SILENCE_SECONDS = 120.0  # how long an untouched claim of another machine is honoured

_EVENT = re.compile(r"([+-]) ([0-9]{1,12}) ([0-9]{1,12})\n")
RowRange = tuple[int, int]
_held: set[Path] = set()  # the claims of this process, in whichever store
_lock = threading.Lock()


class Claim:
    """One shard, claimed by this process.

    `suspects`: rows (of the shard) that a former owner had in flight when it died. `file` is the
    number of the open file.
    """

    def __init__(self, path: Path, file: int, suspects: list[RowRange]) -> None:
        self.path, self.suspects = path, suspects
        self._file = file
        self._guard = threading.Lock()

    def begin(self, rows: RowRange) -> None:
        """Note that rows begin."""
        self._write(b"+ %d %d\n" % rows)

    def end(self, rows: RowRange) -> None:
        """Note that rows have ended."""
        self._write(b"- %d %d\n" % rows)

    def _write(self, line: bytes) -> None:
        with self._guard:
            # A micro-batch may outlive its shard; by then the number may be another file's.
            if self._file >= 0:
                os.write(self._file, line)

    def release(self, whole: bool) -> None:
        """Give the claim up.

        Where the shard is not `whole`, whoever takes it next has the same suspects.
        """
        with self._guard, _lock:
            with suppress(OSError):
                # If another file is there now, another process has taken the claim over.
                if os.path.samestat(os.fstat(self._file), self.path.stat()):
                    if whole or not self.suspects:
                        self.path.unlink()
                    else:
                        replace_text(self.path, _claim_text("", self.suspects))
            os.close(self._file)
            self._file = -1
            _held.discard(self.path)


class Journal:
    """The journal of one store, as one process keeps it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "journal"
        self._seen: dict[Path, tuple[int, float]] = {}

    def claim(self, key: str) -> Claim | None:
        """Claim a shard by its key; None while another living process works on it.

        Raises OSError.
        """
        _make_folder(self.folder)
        path = self.folder / key
        with _lock:
            if path in _held or not (claim := self._take(path)):
                return None
            _held.add(path)
        _beat_from_now_on()
        return claim

    def _take(self, path: Path) -> Claim | None:
        suspects: list[RowRange] = []
        # The file gets its content before it gets its name: nobody ever reads half a claim.
        part = temporary(path)
        file = os.open(part, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.write(file, _claim_text(process()).encode())
            try:
                os.link(part, path)
            except FileExistsError:
                owner, suspects = _read_claim(path)
                if self._is_alive(owner, path):
                    os.close(file)
                    return None
                # Suspects stay written down until they are cleared: this process may be killed
                # before that.
                os.write(file, _in_flight(suspects).encode())
                if path.is_dir() and not path.is_symlink():
                    make_way(path)
                os.replace(part, path)
        except BaseException:
            os.close(file)
            raise
        finally:
            part.unlink(missing_ok=True)
        return Claim(path, file, suspects)

    def _is_alive(self, owner: str, path: Path) -> bool:
        if owner == process():
            return False  # left by a run of this process that did not end well
        known = alive(owner)
        if known is not None:
            return known
        try:
            touched = path.stat().st_mtime_ns
        except OSError:
            return False
        # Clocks of two machines may differ, so only this one counts: how long the other's file has
        # not changed, since this process first looked at it.
        before, since = self._seen.get(path, (0, 0.0))
        if before != touched:
            self._seen[path] = (touched, time.monotonic())
            return True
        return time.monotonic() - since < SILENCE_SECONDS


@contextmanager
def kept_alive(path: Path) -> Iterator[None]:
    """Keep a file that names this process alive as its claims are, though it is none."""
    _make_folder(path.parent)
    path.write_text(_claim_text(process()))
    with _lock:
        _held.add(path)
    _beat_from_now_on()
    try:
        yield
    finally:
        with _lock:
            _held.discard(path)
        path.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        make_way(folder)
        folder.mkdir(exist_ok=True)


def _claim_text(owner: str, suspects: Iterable[RowRange] = ()) -> str:
    return f"{owner}\n{_in_flight(suspects)}"


def _in_flight(rows: Iterable[RowRange]) -> str:
    """Return the lines which say that ranges of rows have begun."""
    return "".join(f"+ {first} {stop}\n" for first, stop in rows)


@cache
def _beat_from_now_on() -> None:
    """Touch this process's claims from time to time, in a thread that ends with it."""

    def beat() -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with _lock:
                held = list(_held)
            for path in held:
                with suppress(OSError):
                    os.utime(path)

    threading.Thread(target=beat, name="qfuse-journal", daemon=True).start()


def _read_claim(path: Path) -> tuple[str, list[RowRange]]:
    """Return a claim's process and the rows that began and did not end.

    A file that is damaged or cannot be read names nobody.
    """
    try:
        owner, *lines = read_regular(path).decode(errors="replace").splitlines(keepends=True)
    except (OSError, ValueError):
        return "", []
    flying: Counter[RowRange] = Counter()
    for line in lines:
        match = _EVENT.fullmatch(line)
        if match:
            flying[int(match[2]), int(match[3])] += 1 if match[1] == "+" else -1
    return owner.strip(), sorted(rows for rows, count in flying.items() if count > 0)
