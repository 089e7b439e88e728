"""A data set's files, in a folder or in a zip, read by relative name and never from outside it.

`Files` is safe to use from several threads. Names that climb out of the root, files above a size limit and zip
members that expand beyond it are refused. Members are stored or deflated: other methods cannot be stopped on the way.
"""

from __future__ import annotations

import os
import struct
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipeline.errors import InvalidInput

MAX_FILE_BYTES = 256 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error)


class Files(Protocol):
    """Read access to a tree of files."""

    root: Path

    def names(self) -> list[str]:
        """All file names, relative, with forward slashes, sorted."""

    def read(self, name: str) -> bytes:
        """The bytes of one file. Raises FileNotFoundError, or InvalidInput where it may not be read."""


def open_files(root: Path) -> Files:
    """Return the files of a folder or of a zip archive. Raises InvalidInput where `root` is neither."""
    if os.path.isdir(root):  # os.path: a name too long to exist is no error
        return Folder(root)
    if os.path.isfile(root) and zipfile.is_zipfile(root):
        return Zip(root)
    state = "is neither a folder nor a zip archive" if os.path.exists(root) else "does not exist"
    raise InvalidInput(f"data set path {root} {state}; set dataset.path to the folder or the .zip that holds it.")


def safe_name(name: str, where: Path) -> str:
    """Return `name` normalised. Raises InvalidInput where it is absolute or climbs out of the root."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name:
        raise InvalidInput(f"{where}: the name {name!r} points outside the data set; such a file is never read.")
    return str(path)


class Folder:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = root.resolve()

    def names(self) -> list[str]:
        return sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())

    def path(self, name: str) -> Path:
        """Return the real path of one file; symbolic links may not lead outside the root."""
        path = Path(os.path.realpath(self._real / safe_name(name, self.root)))  # a loop of links is no error here
        if not path.is_relative_to(self._real):
            raise InvalidInput(f"{self.root}: {name!r} links to a file outside the data set; such a file is never read.")
        return path

    def read(self, name: str) -> bytes:
        path = self.path(name)
        if not os.path.isfile(path):
            raise FileNotFoundError(name)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InvalidInput(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB; it is not read as one sample.")
            return path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read ({error.strerror}).") from error


class Zip:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(root)
        except (*_DAMAGE, OSError, ValueError, NotImplementedError) as error:
            raise InvalidInput(f"{root}: not a readable zip archive ({error}).") from error
        self._info = {safe_name(i.filename, root): i for i in self._zip.infolist() if not i.is_dir()}

    def names(self) -> list[str]:
        return sorted(self._info)

    def read(self, name: str) -> bytes:
        try:
            info = self._info[safe_name(name, self.root)]
        except KeyError:
            raise FileNotFoundError(name) from None
        if info.file_size > MAX_FILE_BYTES:
            raise InvalidInput(f"{self.root}: {name} expands to more than {MAX_FILE_BYTES >> 20} MiB; it is not read.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidInput(f"{self.root}: {name} is neither stored nor deflated; pack the archive again in that way.")
        try:
            with self._lock, self._zip.open(info) as member:
                return member.read(MAX_FILE_BYTES + 1)
        except (*_DAMAGE, EOFError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: encrypted
            raise InvalidInput(f"{self.root}: {name} is damaged inside the archive ({error}).") from error
