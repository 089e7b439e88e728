"""The artifact store: immutable HDF5 shards, each beside a small receipt.

    STORE/format.json                      the store's format number
    STORE/<output>/<k0k1>/<key>.h5         one shard's columns, written once
    STORE/<output>/<k0k1>/<key>.json       its receipt: present means committed
    STORE/quarantine/                      what was found damaged, with a reason
    STORE/journal/                         which process computes what at this moment

Commit: temporary name in the same folder → write with chunk checksums → fsync → re-open and compare
the column digest → hard-link into place, which never replaces → receipt the same way → fsync the
folder. An artifact is present when its receipt is; a file without one is a commit that was cut
short.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.core.schema import Batch, Schema, status_counts
from pipeline.errors import CorruptArtifact, InvalidInput, ResourceRefused, cannot_read
from pipeline.files.digests import DigestCache, file_digest
from pipeline.store import hdf5, maintenance
from pipeline.store.maintenance import NO_OUTPUTS, DamagedArtifact
from pipeline.store.receipt import Receipt, sealed, unsealed
from pipeline.system import fault_points
from pipeline.system.canonical_json import canonical
from pipeline.system.disk import alone, fsync, in_the_way, link_new, make_folders, remove, writing
from pipeline.system.processes import temporary
from pipeline.system.regular_file import NotRegular, kind_of, read_regular

FORMAT = 2

_MENDED = "a run that needs it computes it again."
_LOOKERS = 8  # threads that look at artifacts at once: they wait for the disk or the network


class Store:
    """A folder of artifacts addressed by (output name, key)."""

    def __init__(
        self, root: Path, readonly: bool = False, absent: Container[tuple[str, str]] = ()
    ) -> None:
        """`absent`: damaged artifacts (output, key) that cannot be set aside; they are ignored."""
        self.root = root
        self.readonly = readonly
        self._absent = absent
        self._marker = root / "format.json"
        self._receipts: dict[tuple[str, str], Receipt] = {}  # read once; a receipt never changes
        # artifacts whose files were compared with their receipts
        self._sound: set[tuple[str, str]] = set()
        with writing(root):
            if _holds_others(root) and not self._marker.exists():
                raise InvalidInput(
                    f"{root} is not empty and is not a qfuse store; choose another folder with"
                    " --store."
                )
            if not readonly and not self._marker.exists():
                root.mkdir(parents=True, exist_ok=True)
                link_new(self._marker, canonical({"format": FORMAT}).encode())
        if self._marker.exists() and (found := _format_of(self._marker)) != FORMAT:
            raise InvalidInput(
                f"{root} is a store of format {found}; this qfuse reads format {FORMAT}. "
                "Use the qfuse that wrote it, or another folder with --store."
            )

    @classmethod
    def existing(cls, root: Path) -> Store:
        """Return the store that is there, for a process which knows that it was.

        Raises ResourceRefused if it vanished.
        """
        store = cls(root, readonly=True)
        store.require()
        store.readonly = False
        return store

    @property
    def writable(self) -> bool:
        """Whether the store is there, was opened for writing, and may be written."""
        return not self.readonly and os.access(self.root, os.W_OK)

    def open_digests(self) -> DigestCache:
        """Return the store's cache of file digests; read-only where the store cannot be written."""
        return DigestCache(self.root / "digests.sqlite", readonly=not self.writable)

    def path(self, output: str, key: str) -> Path:
        return self.root / output / key[:2] / f"{key}.h5"

    def has(self, output: str, key: str) -> bool:
        return (output, key) not in self._absent and os.path.lexists(
            self._receipt_path(output, key)
        )

    def present(self, output: str) -> set[str]:
        """Return the keys of an output's artifacts, files included.

        One folder scan: no file is opened.
        """
        keys: set[str] = set()
        try:
            folders = [
                entry.path for entry in os.scandir(self.root / output) if len(entry.name) == 2
            ]
            for folder in folders:
                names = set(os.listdir(folder))
                keys.update(
                    name[:-5]
                    for name in names
                    if name.endswith(".json") and f"{name[:-5]}.h5" in names
                )
        except FileNotFoundError:
            return keys
        except NotADirectoryError as error:
            raise ResourceRefused(f"{in_the_way(error)}: move it away and run again.") from error
        return {key for key in keys if (output, key) not in self._absent} if self._absent else keys

    def aside(self) -> set[tuple[str, str]]:
        """Return (output, first 16 digits of the key) of all that was set aside.

        One folder scan: no file is opened.
        """
        try:
            names = os.listdir(self.root / maintenance.QUARANTINE)
        except (FileNotFoundError, NotADirectoryError):
            return set()
        parts = (
            name.removesuffix(".reason").rsplit("-", 2)
            for name in names
            if name.endswith(".reason")
        )
        return {(part[0], part[1]) for part in parts if len(part) == 3}

    def receipt(self, output: str, key: str) -> Receipt:
        """Return an artifact's receipt.

        Raises CorruptArtifact if it is damaged or gone, ResourceRefused if the machine refuses to
        read it.
        """
        if (output, key) not in self._receipts:
            path = self._receipt_path(output, key)
            try:
                self._receipts[output, key] = unsealed(read_regular(path), output, key)
            except FileNotFoundError:
                self.require()
                raise self._lacking(path, output, key) from None
            except NotRegular as error:
                raise CorruptArtifact(
                    f"{path}: {error.strerror}; {_MENDED}", output, key, self.root
                ) from None
            except OSError as error:
                raise cannot_read(Path(path), error) from error
            except ValueError as error:
                raise CorruptArtifact(
                    f"{path}: {error}; {_MENDED}", output, key, self.root
                ) from error
        return self._receipts[output, key]

    def read(
        self, output: str, key: str, columns: Iterable[str] | None = None, rows: slice = slice(None)
    ) -> Batch:
        """Return columns of an artifact.

        When it is first read, its file is compared with its receipt, byte for byte.

        Raises CorruptArtifact if the file is damaged or gone, ResourceRefused if the machine
        refuses to read it.
        """
        path = self.path(output, key)
        receipt = self.receipt(output, key)
        try:
            # The whole file is hashed when this process first reads it. Later reads rely on the
            # checksums of its chunks.
            known = (output, key) in self._sound
            if not known:
                # The chunks' checksums are not enough: to fletcher32 two bytes of zeros are two of
                # ones.
                if reason := maintenance.file_difference(path, receipt):
                    raise CorruptArtifact(f"{path}: the file is damaged ({reason}).")
                self._sound.add((output, key))
            return hdf5.read(path, columns, rows, checked=not known)
        except CorruptArtifact as error:
            self.require()
            raise CorruptArtifact(
                f"{str(error).removesuffix('.')}; {_MENDED}", output, key, self.root
            ) from error
        except NotRegular as error:
            raise CorruptArtifact(
                f"{path}: {error.strerror}; {_MENDED}", output, key, self.root
            ) from None
        except FileNotFoundError:
            self.require()
            if not self.has(output, key):
                raise self._lacking(path, output, key) from None
            sentence = f"{path}: the receipt is there but {maintenance.GONE}; {_MENDED}"
            raise CorruptArtifact(sentence, output, key, self.root) from None
        except OSError as error:
            raise cannot_read(path, error) from error

    def commit(
        self, output: str, key: str, batch: Batch, schema: Schema, provenance: dict[str, Any]
    ) -> Receipt:
        """Write `batch` as an artifact, or adopt the equal one that is already there.

        Raises InvalidInput if the columns are not the schema's, ResourceRefused if the store cannot
        be written, CorruptArtifact if what was read back differs from what was written.
        """
        schema.check(batch, f"{output} artifact")
        self.require("committed")
        if former := self._adopted(output, key):
            return former
        path, digest = self.path(output, key), batch.digest()
        part = temporary(path)
        with writing(self.root):
            make_folders(path.parent)
            try:
                fault_points.at("commit:before_write", output)
                hdf5.write(part, batch, schema.name)
                fsync(part)
                # Nothing is committed that cannot be read: a bad disk shows here, not in a year.
                if not _reads_back(part, digest):
                    self.require()  # what vanished with the store is not damaged
                    raise CorruptArtifact(
                        f"{part}: what was read back is not what was written; check the disk."
                    )
                size, sha256 = part.stat().st_size, file_digest(part)
                counts = status_counts(batch)
                receipt = Receipt(
                    output,
                    key,
                    schema.name,
                    batch.rows,
                    counts,
                    size,
                    sha256,
                    digest,
                    time.time(),
                    provenance,
                )
                # From here on no other writer, and nobody who deletes or sets aside, comes between.
                with alone(path.parent) as folder:
                    if former := self._adopted(output, key):
                        return former
                    if self.has(output, key):
                        self._receipts.pop((output, key), None)
                        maintenance.move_aside(
                            self.root,
                            path,
                            "its receipt is damaged, or the file is not of its length",
                        )
                    # The receipt comes last: it is what makes an artifact present.
                    fault_points.at("commit:before_link", output)
                    self._link(part, path, sha256)
                    fault_points.at("commit:before_receipt", output)
                    link_new(path.with_suffix(".json"), sealed(receipt))
                    # without locks, `gc` may have met the file without a receipt, and deleted it
                    if not os.path.exists(path):
                        self._link(part, path, sha256)
                    os.fsync(folder)
                self._sound.add((output, key))
                fault_points.at("commit:after_receipt", output)
            finally:
                # As long as `part` is there, `garbage` spares the file, which has no receipt yet.
                remove(part)
        return receipt

    def receipts(self, output: str | None = None) -> Iterator[Path]:
        """Yield the paths of all receipts, in a fixed order."""
        for folder in sorted(self.root.glob(f"{output or '*'}/??")):
            if folder.parent.name not in NO_OUTPUTS:
                yield from sorted(
                    path for path in folder.glob("*.json") if not path.name.startswith(".")
                )

    def check_artifact(self, receipt_path: Path) -> DamagedArtifact | None:
        """Compare one artifact with its receipt: see `maintenance.check_artifact`.

        Raises ResourceRefused if the store vanished.
        """
        if damage := maintenance.check_artifact(receipt_path):
            self.require()
        return damage

    def damaged(self, doubted: Container[tuple[str, str]] = ()) -> list[DamagedArtifact]:
        """Return the damaged artifacts; those `doubted` (output, key) are checked byte by byte.

        The files of the others are not read: they are damaged if their receipt is, or if their file
        is gone or cut short.
        """

        def look(path: Path) -> DamagedArtifact | None:
            try:
                return maintenance.check_artifact(
                    path, whole=(path.parent.parent.name, path.stem) in doubted
                )
            except ResourceRefused:  # reported when it is needed
                return None

        with ThreadPoolExecutor(_LOOKERS, "qfuse-look") as pool:
            return list(filter(None, pool.map(look, self.receipts())))

    def set_aside(self, output: str, key: str, reason: str) -> bool:
        """Set a damaged artifact aside, so that the next run computes it again.

        Its receipt, its file and a line that says why are kept.

        It is checked once more first: if it is sound, or another process was faster, nothing is
        done. Returns whether something was set aside. Raises ResourceRefused if the store
        cannot be written.
        """
        self.require("set aside")
        self._receipts.pop((output, key), None)
        self._sound.discard((output, key))
        path = self.path(output, key)
        with writing(self.root), suppress(FileNotFoundError), alone(path.parent) as folder:
            if maintenance.check_artifact(path.with_suffix(".json")) is not None:
                maintenance.move_aside(self.root, path, reason)
                os.fsync(folder)
                return True
        return False

    def garbage(
        self,
        live: set[tuple[str, str]] | None,
        outputs: Iterable[str] | None = None,
        aside: bool = False,
    ) -> dict[Path, str]:
        """Return the files that no live (output, key) needs: see `maintenance.garbage`."""
        return maintenance.garbage(self.root, live, outputs, aside)

    def _receipt_path(self, output: str, key: str) -> str:
        return f"{self.root}/{output}/{key[:2]}/{key}.json"

    def require(self, done: str = "") -> None:
        """Raise ResourceRefused if the store vanished, or forbids what is to be `done` in it."""
        if done and self.readonly:
            raise ResourceRefused(f"{self.root} was opened read-only; nothing can be {done} in it.")
        if not os.path.exists(self._marker):
            raise ResourceRefused(
                f"the store {self.root} vanished while it was in use (its format.json is gone):"
                " mount it again and run again."
            )

    def _adopted(self, output: str, key: str) -> Receipt | None:
        """Return the receipt of an artifact that is there, checked without reading the file."""
        if not self.has(output, key):
            return None
        try:
            receipt = self.receipt(output, key)
        except CorruptArtifact:
            return None
        return receipt if maintenance.size_of(self.path(output, key)) == receipt.bytes else None

    def _lacking(self, path: Path | str, output: str, key: str) -> CorruptArtifact:
        return CorruptArtifact(f"{path}: it is not in the store; {_MENDED}", output, key, self.root)

    def _link(self, part: Path, path: Path, sha256: str) -> None:
        while True:
            with suppress(FileExistsError):
                os.link(part, path)
                return
            # A writer was killed between file and receipt. Equal columns give equal bytes, so a
            # file of another digest can only be a damaged one.
            try:
                if file_digest(path) == sha256:
                    return
            except FileNotFoundError:
                if not path.is_symlink():
                    continue  # another driver has just set it aside
            except NotRegular:
                pass  # for instance a folder
            maintenance.move_aside(self.root, path, "a file without a receipt held other bytes")


def _reads_back(part: Path, digest: str) -> bool:
    try:
        return hdf5.read(part).digest() == digest
    except CorruptArtifact:
        return False


def is_store(root: Path) -> bool:
    return os.path.exists(root / "format.json")  # if that is not a file, `Store` refuses it


def _holds_others(root: Path) -> bool:
    """Whether a folder holds more than what another driver puts there as it opens a new store."""
    return root.exists() and any(not entry.name.endswith("format.json") for entry in root.iterdir())


def _format_of(marker: Path) -> int:
    """Return a store's format number.

    Raises InvalidInput if the file that tells it is damaged, or no file.
    """
    line = canonical({"format": FORMAT})
    todo = (
        "if this qfuse wrote the store, and run `qfuse store verify`; or choose another folder with"
        " --store."
    )
    try:
        data = read_regular(marker)
    except NotRegular:
        found = f"{marker} is {kind_of(marker)} and should be a file"
        raise InvalidInput(
            f"{found}: move it away and write {line} into a file of that name {todo}"
        ) from None
    except OSError as error:
        raise cannot_read(marker, error) from error
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        number = json.loads(data)["format"]
        if type(number) is int:
            return number
    raise InvalidInput(
        f"{marker} is damaged: expected {line}, found {data[:40].decode('utf-8', 'replace')!r}. Put"
        f" that line into it {todo}"
    )
