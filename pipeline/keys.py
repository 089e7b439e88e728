"""What names an artifact: canonical JSON of everything that decides its numbers, hashed.

File digests are remembered by (path, size, modification time, inode) in the store, so a second plan reads no data.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def canonical(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no nan: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key_of(value: Any) -> str:
    """Return sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def difference(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the fields in which two key pre-images differ, as sentences such as 'options.flip: none → add'."""
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in sorted({*old, *new}):
            found += difference(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        return found
    if isinstance(old, list) and isinstance(new, list) and (len(old) > 3 or len(new) > 3):
        return [f"{path} changed"]
    return [f"{path}: {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    words = canonical(value).strip('"')
    return words if len(words) <= 40 else words[:12] + "…"


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestCache:
    """File digests by path and stat, in one small SQLite file beside the artifacts.

    A file whose size, modification time and inode are unchanged is not read again. Without a writable place
    (`path` None) it remembers for the life of the process only.
    """

    def __init__(self, path: Path | None) -> None:
        self._db = sqlite3.connect(str(path) if path else ":memory:", check_same_thread=False, timeout=30)
        self._db.execute("CREATE TABLE IF NOT EXISTS digest (path TEXT PRIMARY KEY, stat TEXT, sha256 TEXT)")

    def digests(self, paths: Iterable[Path]) -> list[str]:
        """Return the sha256 (hex) of every file, in order."""
        known = {path: (stat, digest) for path, stat, digest in self._db.execute("SELECT path, stat, sha256 FROM digest")}
        found, fresh = [], []
        for path in paths:
            name, info = str(path.resolve()), path.stat()
            stat = f"{info.st_size}:{info.st_mtime_ns}:{info.st_ino}"
            if known.get(name, ("", ""))[0] == stat:
                found.append(known[name][1])
                continue
            found.append(file_digest(path))
            fresh.append((name, stat, found[-1]))
        if fresh:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO digest VALUES (?, ?, ?)", fresh)
        return found

    def digest(self, path: Path) -> str:
        return self.digests([path])[0]
