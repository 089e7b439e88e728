"""A folder for what is needed for a moment, which is removed however the process ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.system import interruption


@contextmanager
def scratch_folder(prefix: str = "qfuse-") -> Iterator[Path]:
    """Give a new folder and remove it afterwards, also if a signal ends the process at once.

    Only what kills the process itself leaves it, in the system's folder of temporary files.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        interruption.folders.add(folder)
        try:
            yield Path(folder)
        finally:
            interruption.folders.discard(folder)
