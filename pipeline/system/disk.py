"""What the store asks of a file system: lasting writes, one writer a folder, clear refusals."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import ResourceRefused
from pipeline.system.processes import alive, process, temporary
from pipeline.system.regular_file import obstacle

# seconds to wait for a process that may have been stopped while it held a folder
_PATIENCE = 10.0

_FULL = "the disk is full: free some space (`qfuse store gc`) and run again"
_ANOTHER = "choose another folder with --store"
_PERMISSION = f"no permission to write: {_ANOTHER}, or fix its permissions"
_IN_THE_WAY = f"move it away and run again, or {_ANOTHER}"
_LINKS = f"no new files or no hard links are allowed there: {_ANOTHER}"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: f"no file may be as large as that: raise the limit (`ulimit -f`), or {_ANOTHER}",
    errno.EROFS: f"the file system is read-only: {_ANOTHER}",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _LINKS,
    errno.EOPNOTSUPP: _LINKS,
    errno.ENOENT: "the store vanished while it was in use: mount it again and run again",
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
}


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn refusals of the operating system (OSError) into ResourceRefused, with what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the disk and run again")
        raise ResourceRefused(
            f"cannot write to the store {root} ({in_the_way(error) or error.strerror or error}):"
            f" {advice}."
        ) from error


def in_the_way(error: OSError) -> str:
    """Say what stands where a folder should be, if that is why the system refused; else ""."""
    blocked = error.errno in (errno.EEXIST, errno.ENOTDIR) and isinstance(
        error.filename, str | Path
    )
    return obstacle(error.filename) if blocked else ""


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Hold a folder, given by the number of its open file, against others that ask for it this way.

    Where the file system has no locks (NFS has none on folders), a link beside the folder, which
    only one process can make, stands for a lock. If the holder does not let go for long, this goes
    on without.
    """
    handle, mark = os.open(folder, os.O_RDONLY), folder.with_name(f".{folder.name}.lock")
    marked, until = False, time.monotonic() + _PATIENCE
    try:
        try:
            while time.monotonic() < until:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.005)
        except OSError:
            marked = _make_lock_link(mark, until)
        yield handle
    finally:
        if marked:
            remove(mark)
        os.close(handle)  # and with it the lock


def _make_lock_link(path: Path, until: float) -> bool:
    """Make the link that stands for a lock and names this process; return whether it could be made.

    The link of a dead process is removed at once, any other when the time is up.
    """
    while True:
        try:
            os.symlink(process(), path)
            return True
        except FileExistsError:
            with suppress(OSError):
                if alive(os.readlink(path)) is False or time.monotonic() > until:
                    path.unlink()
            time.sleep(0.005)
        except OSError:
            return False


def make_folders(folder: Path) -> None:
    """Make a folder and the one it lies in, no more: a vanished store is not made anew in part."""
    if folder.is_dir():
        return
    for path in (folder.parent, folder):
        with suppress(FileExistsError):
            path.mkdir()
            fsync(path.parent)


def link_new(path: Path, data: bytes) -> None:
    """Write a file so that it appears on the disk whole or not at all; never replace one."""
    part = temporary(path)
    try:
        part.write_bytes(data)
        fsync(part)
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        remove(part)


def remove(path: Path) -> None:
    """Remove a file if the disk allows; an error here must not hide an earlier one."""
    with suppress(OSError):
        path.unlink()


def fsync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
