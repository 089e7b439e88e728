"""What a run tells while it works: one JSON object an event, kept as a line in the run folder and shown as it comes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from pipeline.errors import ResourceRefused
from pipeline.regular import need_regular

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
                path = folder / "events.jsonl"
                if path.exists():
                    need_regular(path)
                self._file = path.open("a", encoding="utf-8")
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
            with suppress(OSError):  # what was not written has been told
                self._file.close()


def _refused(folder: Path | None, error: OSError) -> ResourceRefused:
    advice = "set run.folder to one that can be written to"
    return ResourceRefused(f"cannot write to the run folder {folder} ({error.strerror or error}): {advice}.")
