"""The artifact store: immutable HDF5 shards, each beside a small receipt.

    STORE/format.json                      the store's format number
    STORE/<output>/<k0k1>/<key>.h5         one shard's columns, written once
    STORE/<output>/<k0k1>/<key>.json       its receipt: present means committed
    STORE/quarantine/                      what was found damaged, with a reason

Commit: temporary name in the same folder → write with chunk checksums → fsync → re-open and compare the column
digest → hard-link into place, which never replaces → receipt the same way → fsync the folder. An artifact is present
when its receipt is; a file without one is a commit that was cut short.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import hdf5
from pipeline.errors import CorruptArtifact, InvalidInput, ResourceRefused
from pipeline.keys import DigestCache, canonical, file_digest
from pipeline.schema import Batch, Schema, status_counts
from pipeline.temporary import being_written, temporary

FORMAT = 1


@dataclass(frozen=True)
class Receipt:
    """What was committed: enough for plans and status without opening HDF5."""

    output: str
    key: str
    schema: str
    rows: int
    status: dict[str, int]
    bytes: int
    sha256: str
    digest: str
    created: float
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """One artifact that is not what its receipt says."""

    path: Path
    reason: str


class Store:
    """A folder of artifacts addressed by (output name, key)."""

    def __init__(self, root: Path, readonly: bool = False) -> None:
        self.root = root
        self.readonly = readonly
        marker = root / "format.json"
        with _Refusals(root):
            if _holds_others(root) and not marker.exists():
                raise InvalidInput(f"{root} is not empty and is not a qfuse store; choose another folder with --store.")
            if not readonly and not marker.exists():
                root.mkdir(parents=True, exist_ok=True)
                _link_new(marker, canonical({"format": FORMAT}).encode())
        if marker.exists() and (found := _format_of(marker)) != FORMAT:
            raise InvalidInput(
                f"{root} is a store of format {found}; this qfuse reads format {FORMAT}. "
                "Use the qfuse that wrote it, or another folder with --store."
            )

    def open_digests(self) -> DigestCache:
        """Return the file-digest cache kept in this store; it is read, not written, where the store may not be."""
        writable = self.root.exists() and os.access(self.root, os.W_OK) and not self.readonly
        return DigestCache(self.root / "digests.sqlite", readonly=not writable)

    def path(self, output: str, key: str) -> Path:
        return self.root / output / key[:2] / f"{key}.h5"

    def has(self, output: str, key: str) -> bool:
        return self.path(output, key).with_suffix(".json").exists()

    def present(self, output: str) -> set[str]:
        """Return the keys of all committed artifacts of one output (one folder scan, no file opened)."""
        keys: set[str] = set()
        try:
            folders = [entry.path for entry in os.scandir(self.root / output) if entry.is_dir()]
        except FileNotFoundError:
            return keys
        for folder in folders:
            keys.update(entry.name[:-5] for entry in os.scandir(folder) if entry.name.endswith(".json"))
        return keys

    def receipt(self, output: str, key: str) -> Receipt:
        """Return an artifact's receipt. Raises CorruptArtifact where it is unreadable."""
        path = self.path(output, key).with_suffix(".json")
        try:
            return Receipt(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise CorruptArtifact(f"{path}: the receipt is unreadable; run `qfuse store verify`.") from error

    def read(self, output: str, key: str, columns: Iterable[str] | None = None, rows: slice = slice(None)) -> Batch:
        """Return columns of an artifact. Raises CorruptArtifact where the file is damaged or gone."""
        path = self.path(output, key)
        try:
            return hdf5.read(path, columns, rows)
        except FileNotFoundError:
            state = "it is not in the store;"
            if self.has(output, key):
                state = "the receipt is there but the file is gone; run `qfuse store verify`, then"
            raise CorruptArtifact(f"{path}: {state} run again.") from None

    def commit(self, output: str, key: str, batch: Batch, schema: Schema, provenance: dict[str, Any]) -> Receipt:
        """Write `batch` as an artifact, or adopt the equal one that is already there.

        Raises InvalidInput where the columns are not the schema's, ResourceRefused where the store cannot be
        written, CorruptArtifact where what was read back differs from what was written.
        """
        schema.check(batch, f"{output} artifact")
        if self.readonly:
            raise ResourceRefused(f"{self.root} was opened read-only; nothing can be committed to it.")
        if self.has(output, key):
            return self.receipt(output, key)
        path, digest = self.path(output, key), batch.digest()
        with _Refusals(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = temporary(path)
            try:
                hdf5.write(part, batch, schema.name)
                _fsync(part)
                if hdf5.read(part).digest() != digest:
                    raise CorruptArtifact(f"{part}: what was read back is not what was written; check the disk.")
                sha256, size = file_digest(part), part.stat().st_size
                self._link(part, path, sha256)
                receipt = Receipt(
                    output,
                    key,
                    schema.name,
                    batch.rows,
                    status_counts(batch),
                    size,
                    sha256,
                    digest,
                    time.time(),
                    provenance,
                )
                _link_new(path.with_suffix(".json"), canonical(asdict(receipt)).encode("utf-8", "surrogatepass"))
                _fsync(path.parent)
            finally:
                part.unlink(missing_ok=True)  # as long as it is there, `garbage` spares the file without receipt
        return receipt

    def receipts(self, output: str | None = None) -> Iterator[Path]:
        """Yield the paths of all receipts, in a fixed order."""
        for folder in sorted(self.root.glob(f"{output or '*'}/??")):
            if folder.parent.name not in ("quarantine", "runs"):
                yield from sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))

    def check(self, receipt_path: Path) -> Problem | None:
        """Compare one artifact with its receipt, byte for byte."""
        path = receipt_path.with_suffix(".h5")
        try:
            receipt = Receipt(**json.loads(receipt_path.read_bytes()))
        except (ValueError, TypeError):
            return Problem(path, "the receipt is unreadable")
        if receipt.key != receipt_path.stem or receipt.output != receipt_path.parent.parent.name:
            return Problem(path, "the receipt belongs to another artifact")
        if not path.exists():
            return Problem(path, "the file is gone")
        if (found := file_digest(path)) != receipt.sha256:
            return Problem(path, f"expected sha256 {receipt.sha256[:12]}…, found {found[:12]}…")
        return None

    def quarantine(self, problem: Problem) -> None:
        """Set a damaged artifact aside (file, receipt and a line saying why), so that the next run recomputes it."""
        with _Refusals(self.root):
            aside = self.root / "quarantine"
            aside.mkdir(exist_ok=True)
            stamp = f"{problem.path.parent.parent.name}-{problem.path.stem[:16]}-{time.time_ns()}"
            (aside / f"{stamp}.reason").write_text(f"{problem.path}: {problem.reason}\n")
            for suffix in (".json", ".h5"):
                with suppress(FileNotFoundError):
                    os.rename(problem.path.with_suffix(suffix), aside / f"{stamp}{suffix}")

    def garbage(self, live: set[tuple[str, str]], outputs: Iterable[str] | None = None) -> list[Path]:
        """Return the files that no live (output, key) needs: superseded artifacts, orphans, leftovers of killed writers.

        With `outputs`, only those outputs are considered.
        """
        wanted = None if outputs is None else set(outputs)
        found = []
        busy: set[Path] = set()  # what running processes are about to commit
        for path in sorted(self.root.glob("*/??/*")):  # temporary files first: their names begin with a dot
            output = path.parent.parent.name
            if output in ("quarantine", "runs") or (wanted is not None and output not in wanted):
                continue
            if path.name.startswith("."):
                if name := being_written(path):
                    busy.add(path.with_name(name).with_suffix(".h5"))
                else:
                    found.append(path)
            elif path not in busy and ((output, path.stem) not in live or not path.with_suffix(".json").exists()):
                found.append(path)
        return found

    def _link(self, temporary: Path, path: Path, sha256: str) -> None:
        while True:
            with suppress(FileExistsError):
                os.link(temporary, path)
                return
            # A writer was killed between file and receipt, or another driver is just ahead. Equal columns give
            # equal bytes, so a file of another digest can only be a damaged one.
            with suppress(FileNotFoundError):  # another driver has just set it aside
                if file_digest(path) == sha256:
                    return
                self.quarantine(Problem(path, "a file without receipt held other bytes"))


class _Refusals:
    """Turn the operating system's refusals into one sentence with what to do."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            advice = {
                errno.ENOSPC: "the disk is full: free some space (`qfuse store gc`) and run again",
                errno.EROFS: "the file system is read-only: choose another folder with --store",
                errno.EACCES: "no permission to write: choose another folder with --store, or mend its permissions",
                errno.EPERM: "no permission to write: choose another folder with --store, or mend its permissions",
                errno.ENOENT: "the store vanished while it was in use: mount it again and run again",
                errno.EEXIST: "a file is where a folder should be: choose another folder with --store",
                errno.ENOTDIR: "a file is where a folder should be: choose another folder with --store",
            }.get(error.errno or 0, "check the disk and run again")
            raise ResourceRefused(f"cannot write to the store {self.root} ({error.strerror or error}): {advice}.") from error


def _holds_others(root: Path) -> bool:
    """Whether a folder holds anything besides what another driver, opening a new store at this moment, puts there."""
    return root.exists() and any(not entry.name.endswith("format.json") for entry in root.iterdir())


def _link_new(path: Path, data: bytes) -> None:
    part = temporary(path)
    try:
        part.write_bytes(data)
        _fsync(part)
        os.link(part, path)
    except FileExistsError:
        pass  # another driver committed the same artifact first
    finally:
        part.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _format_of(marker: Path) -> Any:
    try:
        return json.loads(marker.read_bytes())["format"]
    except (ValueError, KeyError, TypeError):
        return "unknown"
