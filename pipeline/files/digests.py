"""Digests of files.

They are remembered by (path, size, times of modification and change, inode) in the store, so a
second plan reads no data.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from pipeline.errors import cannot_read
from pipeline.system.regular_file import need_regular, open_regular

# stands for the digest of a file that is there and may not or cannot be read, whoever tries
UNREADABLE = "unreadable"
# the name of the cache's current table; older ones differ
_NO_CACHE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestCache:
    """File digests by path and stat, in one small SQLite file beside the artifacts.

    A file whose size, times of modification and of change, and inode are unchanged is not read
    again. (A program may set the first time back, never the second.) Without a file (`path` None)
    it remembers as long as the process lives. A read-only, locked or damaged cache costs time but
    gives no wrong answer: each row carries a seal, and a row whose seal does not fit is ignored.
    """

    def __init__(self, path: Path | None, readonly: bool = False) -> None:
        self._path = None if readonly else path
        self._known: dict[str, tuple[str, str, str]] = {}
        if path is None:
            return
        if self._path is not None:
            with suppress(OSError):
                # later it is only opened: a folder that vanishes meanwhile is not given one anew
                path.touch()
        with suppress(sqlite3.Error, OSError), closing(_connect(path, "ro", 1)) as db:
            # then its seal does not fit
            db.text_factory = lambda data: data.decode("utf-8", "replace")
            rows = db.execute("SELECT path, stat, sha256, seal FROM file_digest")
            self._known = {name: (stat, digest, seal) for name, stat, digest, seal in rows}

    def digests(self, paths: Iterable[Path], real: bool = False) -> list[str]:
        """Return the sha256 (hex) of every file, in order.

        It is empty where there is no file, and UNREADABLE without permission. `real` says that no
        path leads over a symbolic link, so none is looked for. Raises ResourceRefused if the
        machine fails, because a passing failure must not be remembered as the file's digest.
        """
        found: list[str] = []
        fresh: list[tuple[str, str, str, str]] = []
        try:
            for path in paths:
                try:
                    found.append(
                        self._digest(path, str(path) if real else os.path.realpath(path), fresh)
                    )
                except PermissionError:
                    found.append(UNREADABLE)
                except OSError as error:
                    if error.errno not in NO_FILE:
                        raise cannot_read(path, error) from error
                    found.append("")
        finally:
            if fresh and self._path is not None:
                _keep(self._path, fresh)
        return found

    def digest(self, path: Path) -> str:
        return self.digests([path])[0]

    def _digest(self, path: Path, name: str, fresh: list[tuple[str, str, str, str]]) -> str:
        info = os.stat(path)
        if not stat.S_ISREG(info.st_mode):
            return ""
        state = f"{info.st_size}:{info.st_mtime_ns}:{info.st_ctime_ns}:{info.st_ino}"
        known, digest, seal = self._known.get(name, ("", "", ""))
        if known != state or seal != _seal(name, state, digest):
            digest = file_digest(path)
            self._known[name] = (state, digest, _seal(name, state, digest))
            fresh.append((name, *self._known[name]))
        return digest


def _seal(name: str, state: str, digest: str) -> str:
    return hashlib.sha256(f"{name}|{state}|{digest}".encode("utf-8", "surrogatepass")).hexdigest()[
        :16
    ]


def _connect(path: Path, mode: str, timeout: float) -> sqlite3.Connection:
    need_regular(path)  # SQLite would open anything
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", timeout=timeout, uri=True)


def _keep(path: Path, fresh: list[tuple[str, str, str, str]]) -> None:
    # SQLite takes UTF-8 only: a file of another name is read again next time.
    rows = [row for row in fresh if row[0] == row[0].encode("utf-8", "ignore").decode("utf-8")]
    try:
        with closing(_connect(path, "rw", 30)) as db, db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS file_digest (path TEXT PRIMARY KEY, stat TEXT, sha256"
                " TEXT, seal TEXT)"
            )
            db.executemany("INSERT OR REPLACE INTO file_digest VALUES (?, ?, ?, ?)", rows)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in _NO_CACHE:
            with suppress(OSError):
                os.truncate(path, 0)  # an empty file is an empty cache, for the next run to fill
    except OSError:
        return  # it was removed meanwhile
