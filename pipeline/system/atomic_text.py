"""Files written whole: readers find the old bytes or the new, and what is in the way is kept."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path

from pipeline.errors import cannot_write
from pipeline.system.processes import temporary


def is_free(path: Path) -> bool:
    """Whether nothing is at `path`, where something is going to be written.

    Raises ResourceRefused if nothing can be.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError as error:  # a name too long, a file where a folder should be
        raise cannot_write(path, error) from None
    return False


def replace_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8), as `replace_bytes` does."""
    replace_bytes(path, text.encode("utf-8", "surrogatepass"))


def replace_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file by rename: readers, even after a power cut, find the old bytes or the new.

    Makes the folder. Several processes may write one path at once; what one of them wrote stays. A
    folder that is in the way is renamed. Raises OSError; then nothing is left of what was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(path)
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.replace(part, path)
        except IsADirectoryError:
            make_way(path)
            os.replace(part, path)
    except OSError as error:
        error.filename = str(path)  # the error of a full disk names no file
        raise
    finally:
        part.unlink(missing_ok=True)


def make_way(path: Path) -> None:
    """Rename what stands where a file should be to a free name beside it: nothing is lost."""
    with suppress(FileNotFoundError):  # another process was faster
        os.rename(
            path,
            next(
                other
                for n in itertools.count(1)
                if not os.path.lexists(other := Path(f"{path}.{n}"))
            ),
        )
