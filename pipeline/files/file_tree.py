"""A data set's files in a folder, a zip or a pack of images, read by relative name.

Nothing outside the root is ever read.

`Files` is safe to use from several threads. Names that climb out of the root, files above a size
limit and zip members that expand beyond it are refused. Members are stored or deflated: other
methods cannot be stopped on the way. A pack (`pipeline.files.image_pack`) is a pickle, and is read
without the pickle module.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipeline.errors import InvalidInput, cannot_read
from pipeline.files.digests import NO_FILE, UNREADABLE, DigestCache
from pipeline.files.image_pack import open_pack
from pipeline.system.regular_file import NotRegular, open_regular

MAX_FILE_BYTES = 256 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error)
_DAMAGED_OFFSET = {None, errno.EINVAL}  # what a place before the archive's first byte gives


class Files(Protocol):
    """Read access to a tree of files.

    `passed_over` says of what `names` has met last, and is no file to be read, why: relative name →
    reason.
    """

    root: Path
    passed_over: Mapping[str, str]

    def names(self) -> list[str]:
        """All file names, relative, with forward slashes, sorted."""

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises FileNotFoundError; InvalidInput if it may not be read or is damaged; ResourceRefused
        if the machine fails.
        """

    def digests(self, names: Iterable[str], limit: int | None = None) -> list[str]:
        """The sha256 (hex) of each file, the same whenever it is asked for.

        Empty if there is none; UNREADABLE for one that is damaged inside its archive, leads out of
        the tree, may not be read, or holds more than `limit` bytes. Raises ResourceRefused if the
        machine fails.
        """


def open_files(root: Path, digests: DigestCache | None = None) -> Files:
    """Return the files of a folder, of a zip archive or of a pack.

    Raises InvalidInput if `root` is none of them. `digests` remembers the digests of a folder's
    files and of the whole archive (`Zip.sha256`).
    """
    if os.path.isdir(root):  # unlike Path.is_dir, this is False for a name that is too long
        return Folder(root, digests)
    if (pack := open_pack(root)) is not None:
        return pack
    if os.path.isfile(root) and zipfile.is_zipfile(root):
        return Zip(root, digests.digest(root) if digests is not None else "")
    state = "does not exist"
    if os.path.exists(root):
        state = "is neither a folder, a zip archive nor a pack of pairs (.bin)"
    raise InvalidInput(
        f"data set path {root} {state}; set dataset.path to the folder or the .zip (or the .bin)"
        " that holds it."
    )


def safe_name(name: str, where: Path) -> str:
    """Return `name` normalised.

    Raises InvalidInput if it is absolute, climbs out of the root, or can name no file.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name:
        raise InvalidInput(
            f"{where}: the name {name!r:.200} points outside the data set; such a file is never"
            " read."
        )
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise InvalidInput(
            f"{where}: {name!r:.200} is not text, so no file can have that name."
        ) from None
    return str(path)


class Folder:
    def __init__(self, root: Path, digests: DigestCache | None = None) -> None:
        self.root = root
        self._real = root.resolve()
        self._cache = digests or DigestCache(None)
        # kept from the first reading, so that keys and tables are made of the same files
        self._digests: dict[str, str] = {}
        self._folders: dict[str, str] = {}  # the real path of every folder met so far
        self._names: list[str] | None = None
        self.passed_over: Mapping[str, str] = {}

    def names(self) -> list[str]:
        """Walk the tree, once.

        Links to folders are followed, inside the root, and each folder once by links at most.
        """
        if self._names is None:
            self._names, self.passed_over = self._walked()
        return list(self._names)

    def _walked(self) -> tuple[list[str], dict[str, str]]:
        """Return the sorted names of all files, and of all else why it cannot be read."""
        found, passed = list[str](), dict[str, str]()
        root, linked = str(self._real), set[str]()
        # name, real paths down to it, by a link
        waiting: list[tuple[str, tuple[str, ...], bool]] = [("", (root,), False)]
        while waiting:
            folder, chain, by_link = waiting.pop()
            try:
                entries = sorted(os.scandir(chain[-1]), key=lambda entry: entry.name)
            except PermissionError:
                passed[folder] = "no permission to read the folder"
                continue
            except OSError as error:
                raise cannot_read(Path(error.filename or self.root), error) from error
            if folder and not entries:
                passed[folder] = "an empty folder"
            for entry in entries:
                name, link = f"{folder}{entry.name}", entry.is_symlink()
                # unlike Path's, these do not raise for a circle of links
                if os.path.isfile(entry.path) if link else entry.is_file():
                    found.append(name)
                elif not (os.path.isdir(entry.path) if link else entry.is_dir()):
                    passed[name] = (
                        "a link that leads nowhere" if link else "neither a file nor a folder"
                    )
                else:
                    real, through = (
                        os.path.realpath(entry.path) if link else entry.path,
                        by_link or link,
                    )
                    if not os.path.join(real, "").startswith(os.path.join(root, "")):
                        passed[name] = "a link out of the data set"
                    elif real in chain or (through and real in linked):
                        passed[name] = "a link in a circle, or to what another link leads to"
                    else:
                        linked |= {real} if through else set()
                        waiting.append((f"{name}/", (*chain, real), through))
        return sorted(found), passed

    def path(self, name: str) -> Path:
        """Return the real path of one file; symbolic links may not lead outside the root."""
        above, _, own = safe_name(name, self.root).rpartition("/")
        if (folder := self._folders.get(above)) is None:
            folder = self._folders[above] = os.path.realpath(self._real / above)
        path = os.path.join(folder, own)
        if os.path.islink(path):
            path = os.path.realpath(path)  # a loop of links is no error here
        if not path.startswith(os.path.join(self._real, "")):
            raise InvalidInput(
                f"{self.root}: {name!r} links to a file outside the data set; such a file is never"
                " read."
            )
        return Path(path)

    def read(self, name: str) -> bytes:
        path = self.path(name)
        try:
            with open_regular(path) as file:
                if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                    raise InvalidInput(
                        f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB; it is not read as one"
                        " sample."
                    )
                return file.read()
        except NotRegular:
            raise FileNotFoundError(name) from None
        except PermissionError as error:
            raise InvalidInput(
                f"{path} cannot be read ({error.strerror}); fix its permissions."
            ) from error
        except OSError as error:
            if error.errno in {None, *NO_FILE}:
                raise FileNotFoundError(name) from None
            raise cannot_read(path, error) from error

    def digests(self, names: Iterable[str], limit: int | None = None) -> list[str]:
        names, paths = list(names), {}
        for name in names:
            if name not in self._digests:
                try:
                    paths[name] = self.path(name)
                except InvalidInput:
                    self._digests[name] = UNREADABLE
        self._digests.update(
            zip(paths, self._cache.digests(paths.values(), real=True), strict=True)
        )
        return [
            UNREADABLE if limit is not None and self._larger(name, limit) else self._digests[name]
            for name in names
        ]

    def _larger(self, name: str, limit: int) -> bool:
        try:
            return (
                self._digests[name] not in ("", UNREADABLE)
                and os.path.getsize(self.path(name)) > limit
            )
        except OSError:  # it was removed meanwhile
            return False


class Zip:
    """`sha256` is the digest of the whole archive, where whoever opened it has asked for it."""

    def __init__(self, root: Path, sha256: str = "") -> None:
        self.root = root
        self.sha256 = sha256
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(root)
        except (*_DAMAGE, OSError, ValueError, NotImplementedError) as error:
            raise InvalidInput(f"{root}: not a readable zip archive ({error}).") from error
        self._info: dict[str, zipfile.ZipInfo] = {}
        folders = set[str]()
        end = 0
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            # One piece of a few kB that a thousand members share would keep a machine busy for
            # days.
            if info.header_offset < end:
                raise InvalidInput(
                    f"{root}: {info.filename!r:.200} overlaps another member of the archive; pack"
                    " it again."
                )
            end = info.header_offset + info.compress_size
            if info.filename.endswith("/"):
                folders.add(f"{PurePosixPath(info.filename)}/")
                continue
            name = safe_name(info.filename, root)
            if name in self._info:
                raise InvalidInput(
                    f"{root}: it holds {name!r:.200} twice; pack the archive again with one of"
                    " them."
                )
            self._info[name] = info
        every = sorted([*self._info, *folders])  # the files of a folder come after it
        empty = (
            name
            for name, after in zip(every, [*every[1:], ""], strict=True)
            if not after.startswith(name)
        )
        self.passed_over: Mapping[str, str] = {
            name: "an empty folder" for name in empty if name in folders - {"./"}
        }

    def names(self) -> list[str]:
        return sorted(self._info)

    def read(self, name: str) -> bytes:
        try:
            info = self._info[safe_name(name, self.root)]
        except KeyError:
            raise FileNotFoundError(name) from None
        if info.file_size > MAX_FILE_BYTES:
            raise InvalidInput(
                f"{self.root}: {name} expands to more than {MAX_FILE_BYTES >> 20} MiB; it is not"
                " read."
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidInput(
                f"{self.root}: {name} is neither stored nor deflated; pack the archive again in"
                " that way."
            )
        try:
            with self._lock, self._zip.open(info) as member:
                return member.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            if error.errno in _DAMAGED_OFFSET:
                raise self._damaged(name, error) from error
            raise cannot_read(self.root, error) from error
        # zipfile raises RuntimeError for a member that is encrypted.
        except (*_DAMAGE, EOFError, RuntimeError, ValueError, OverflowError) as error:
            raise self._damaged(name, error) from error

    def digests(self, names: Iterable[str], limit: int | None = None) -> list[str]:
        return [self._digest(name, limit) for name in names]

    def _digest(self, name: str, limit: int | None) -> str:
        try:
            data = self.read(name)
        except FileNotFoundError:
            return ""
        except InvalidInput:
            return UNREADABLE
        if limit is not None and len(data) > limit:
            return UNREADABLE
        return hashlib.sha256(data).hexdigest()

    def _damaged(self, name: str, error: Exception) -> InvalidInput:
        return InvalidInput(f"{self.root}: {name} is damaged inside the archive ({error}).")
