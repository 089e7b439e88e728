"""Looking after a store: compare artifacts with receipts, set damage aside, find garbage."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import cannot_read
from pipeline.files.digests import file_digest
from pipeline.store.receipt import Receipt, unsealed
from pipeline.system import fault_points
from pipeline.system.disk import alone
from pipeline.system.processes import alive, being_written, untouched
from pipeline.system.regular_file import NotRegular, need_regular, open_regular, read_regular

QUARANTINE = "quarantine"
NO_OUTPUTS = {QUARANTINE, "runs", "journal"}  # folders of a store that hold no artifacts
# Classes of garbage.
UNNEEDED, ORPHAN, LEFTOVER, ASIDE = (
    "not needed",
    "without a receipt",
    "left by killed writers",
    "set aside",
)
GONE = "the file is gone"


@dataclass(frozen=True)
class DamagedArtifact:
    """An artifact that is not what its receipt says: the path of its HDF5 file, and why."""

    path: Path
    reason: str

    @property
    def output(self) -> str:
        return self.path.parent.parent.name

    @property
    def key(self) -> str:
        return self.path.stem


def check_artifact(receipt_path: Path, whole: bool = True) -> DamagedArtifact | None:
    """Compare one artifact with its receipt: seal, name, size and, if `whole`, every byte.

    An artifact that has gone meanwhile, with its receipt, has no problem. Raises ResourceRefused if
    the machine refuses.
    """
    path = receipt_path.with_suffix(".h5")
    named = DamagedArtifact(path, "")
    try:
        receipt = unsealed(read_regular(receipt_path), named.output, named.key)
        if reason := file_difference(path, receipt, whole):
            return DamagedArtifact(path, reason)
    except FileNotFoundError:
        return DamagedArtifact(path, GONE) if os.path.lexists(receipt_path) else None
    except ValueError as error:
        return DamagedArtifact(path, str(error))
    except NotRegular as error:
        return DamagedArtifact(path, f"{Path(error.filename).name}: {error.strerror}")
    except OSError as error:
        if error.errno != errno.EIO:
            raise cannot_read(Path(error.filename or path), error) from error
        return DamagedArtifact(path, f"it cannot be read ({error.strerror})")
    return None


def file_difference(path: Path, receipt: Receipt, whole: bool = True) -> str:
    """Say in what a file differs from its receipt, by every byte or, unless `whole`, by size.

    Returns "" if it does not.

    Raises OSError.
    """
    need_regular(path)
    if (size := path.stat().st_size) != receipt.bytes:
        return f"expected {receipt.bytes:,} bytes, found {size:,}"
    if whole and (found := file_digest(path)) != receipt.sha256:
        return f"expected sha256 {receipt.sha256[:12]}…, found {found[:12]}…"
    return ""


def verify(
    receipts: Sequence[Path], workers: int, advance: Callable[[int], object]
) -> list[DamagedArtifact]:
    """Check many artifacts in `workers` threads; `advance` gets the bytes of each checked file."""
    with ThreadPoolExecutor(workers, "qfuse-verify") as pool:
        problems = []
        for path, problem in zip(receipts, pool.map(check_artifact, receipts), strict=True):
            problems += [problem] if problem else []
            advance(size_of(path.with_suffix(".h5")))
        return problems


def move_aside(root: Path, path: Path, reason: str) -> None:
    """Move an artifact's receipt and file to ROOT/quarantine/, beside a line that says why.

    Nothing there is replaced.
    """
    aside = root / QUARANTINE
    aside.mkdir(exist_ok=True)
    for number in itertools.count(1):
        name = f"{path.parent.parent.name}-{path.stem[:16]}-{number}"
        if any((aside / f"{name}{suffix}").exists() for suffix in (".json", ".h5")):
            continue
        with (
            suppress(FileExistsError),
            (aside / f"{name}.reason").open("x", encoding="utf-8", errors="replace") as file,
        ):
            # Only one process can create this file, and so owns the name.
            file.write(f"{path}: {reason}\n")
            break
    # The receipt first: if this is cut short, no receipt is left without its file.
    for suffix in (".json", ".h5"):
        with suppress(FileNotFoundError):
            os.rename(path.with_suffix(suffix), aside / f"{name}{suffix}")
        fault_points.at(f"set_aside:after_{suffix[1:]}", path.parent.parent.name)


def obstacles(root: Path, outputs: Iterable[str]) -> list[Path]:
    """Return what stands in the place of a folder of the store, of `outputs`, or of keys."""
    folders = {root / name for name in (*outputs, *NO_OUTPUTS)} | set(root.glob("ingest.*"))
    folders |= {path for path in root.glob("*/??") if path.parent.name not in NO_OUTPUTS}
    return sorted(path for path in folders if os.path.lexists(path) and not path.is_dir())


def garbage(
    root: Path,
    live: set[tuple[str, str]] | None,
    outputs: Iterable[str] | None = None,
    aside: bool = False,
) -> dict[Path, str]:
    """Return the files that no live (output, key) needs, each with its class.

    With `live` None every artifact is live.

    With `outputs`, only those outputs are considered, and of these what was set aside too. With
    `aside`, all that was set aside is garbage.
    """
    wanted = None if outputs is None else set(outputs)
    found: dict[Path, str] = {}
    busy: set[Path] = set()  # files that running processes are about to commit
    for path in sorted(root.glob("*/??/*")):  # temporary files first: their names begin with a dot
        output = path.parent.parent.name
        if output in NO_OUTPUTS or (wanted is not None and output not in wanted) or path.is_dir():
            continue
        if path.name.startswith("."):
            if name := being_written(path):
                busy.add(path.with_name(name).with_suffix(".h5"))
            else:
                found[path] = LEFTOVER
        elif path not in busy and path.suffix in (".h5", ".json"):
            if not os.path.lexists(path.with_suffix(".json")):
                found[path] = ORPHAN
            elif live is not None and (output, path.stem) not in live:
                found[path] = UNNEEDED
    if wanted is None:
        found |= {
            path: LEFTOVER
            for path in sorted(root.glob(".*-format.json"))
            if not being_written(path)
        }
        found |= {path: LEFTOVER for path in sorted(root.glob("journal/*")) if _forgotten(path)}
    for path in sorted(root.glob(f"{QUARANTINE}/*")):
        if (
            aside or (wanted is not None and path.name.rsplit("-", 2)[0] in wanted)
        ) and not path.is_dir():
            found[path] = ASIDE
    return found


def delete(found: Mapping[Path, str]) -> None:
    """Delete garbage, an artifact as a whole: its receipt, then at once its file.

    Its folder is held meanwhile, so that nobody commits in between. Cut short at any point, this
    leaves no receipt without its file. A file that has got a receipt since it was found without
    one stays.
    """
    # folder → paths without suffix (a name may hold more dots) → class
    artifacts: dict[Path, dict[str, str]] = {}
    for path, kind in found.items():
        if kind in (UNNEEDED, ORPHAN):
            artifacts.setdefault(path.parent, {})[str(path).removesuffix(path.suffix)] = kind
        else:
            path.unlink(missing_ok=True)
    for folder, of_folder in artifacts.items():
        with suppress(FileNotFoundError), alone(folder):
            for name, kind in of_folder.items():
                if kind == ORPHAN and os.path.lexists(f"{name}.json"):
                    continue
                # The receipt twice: without locks somebody may have committed in between.
                for suffix in ".json", ".h5", ".json":
                    with suppress(FileNotFoundError, IsADirectoryError):
                        Path(f"{name}{suffix}").unlink()


def size_of(path: Path) -> int:
    """Return a file's bytes; 0 where it is gone, or something else is there."""
    try:
        need_regular(path)
        return path.stat().st_size
    except OSError:
        return 0


def _forgotten(claim: Path) -> bool:
    """Whether a file of the journal is a dead process's.

    For a day it may still tell a run which row killed that process.
    """
    try:
        with open_regular(claim) as file:
            owner = file.readline(100).decode("ascii", "replace").strip()
    except OSError:
        return False
    return untouched(claim) and not alive(owner)
