"""What a run reports while it works: one JSON object an event.

Events are lines in the run folder, and are shown as they come.
"""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pipeline.errors import ResourceRefused
from pipeline.system.atomic_text import make_way
from pipeline.system.disk import in_the_way
from pipeline.system.regular_file import NotRegular, need_regular

Event = dict[str, Any]
Listener = Callable[[Event], None]


class Events:
    """Send every event to the listeners and, with a folder, to its `events.jsonl`."""

    def __init__(self, folder: Path | None = None, *listeners: Listener) -> None:
        self._listeners = listeners
        self._lock = threading.Lock()
        self._folder = folder
        self._file: IO[str] | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = _appended(folder / "events.jsonl")
            except OSError as error:
                raise _refused(folder, error) from error

    def send(self, event: str, **fields: Any) -> None:
        record = {"time": round(time.time(), 3), "event": event, **fields}
        with self._lock:
            if self._file is not None:
                try:
                    self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
                    self._file.flush()
                except OSError as error:
                    raise _refused(self._folder, error) from error
            for listener in self._listeners:
                listener(record)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # an event that could not be written has been reported
                self._file.close()


def _refused(folder: Path | None, error: OSError) -> ResourceRefused:
    blocked = in_the_way(error)
    advice = f"{'move it away, or ' * bool(blocked)}set run.folder to one that can be written to"
    return ResourceRefused(
        f"cannot write to the run folder {folder} ({blocked or error.strerror or error}): {advice}."
    )


def _appended(path: Path) -> IO[str]:
    """Open a file of lines to append to it.

    A last line that was cut short is ended; what is not a file is renamed.
    """
    try:
        need_regular(path)
    except FileNotFoundError:
        pass
    except NotRegular:
        make_way(path)
    file = path.open("a+b")
    if file.seek(0, os.SEEK_END) and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
        file.write(b"\n")
    return io.TextIOWrapper(file, encoding="utf-8", errors="surrogatepass")
