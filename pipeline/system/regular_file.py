"""What is at a path: a regular file is opened, and anything else is refused at once.

What stands in a folder's way is named.

Opening a pipe waits for whoever writes to it, a device may never end, and libraries that are given
a path open whatever is there. So every file is opened here, or looked at here before a library
opens it.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(OSError):
    """Something that is not a regular file is where one should be; `strerror` says what."""


def need_regular(path: str | Path) -> None:
    """Raise NotRegular if something other than a regular file is at `path`.

    Raises FileNotFoundError, or another OSError, if nothing is there or it cannot be looked at.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # NUL, or half a surrogate pair
        raise OSError(errno.EINVAL, "no file can have that name", str(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself
            raise NotRegular(error.errno, error.strerror, str(path)) from None
        raise
    if not stat.S_ISREG(mode):
        if stat.S_ISDIR(mode):
            raise NotRegular(errno.EISDIR, "it is a folder", str(path))
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise NotRegular(errno.EINVAL, f"{kind} is not a regular file", str(path))


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError, as `need_regular` does."""
    need_regular(path)
    # If it has become a pipe meanwhile, opening it must not wait either.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def obstacle(folder: str | Path) -> str:
    """Say what stands in the place of a folder, or of one above it; "" if nothing does."""
    for place in (Path(folder), *Path(folder).parents):
        if os.path.isdir(place):
            break
        if os.path.lexists(place):
            return f"{place} is {kind_of(place)} and should be a folder"
    return ""


def kind_of(path: str | Path) -> str:
    """Say what kind of thing is at a path, such as "a pipe"."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "something else")
    except OSError:
        return "a link that leads nowhere"


def read_regular(path: str | Path) -> bytes:
    """Return the bytes of a regular file. Raises OSError, as `need_regular` does."""
    with open_regular(path) as file:
        return file.read()
