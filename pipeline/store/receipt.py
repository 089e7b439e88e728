"""A receipt: what was committed, in a small file that protects itself.

It is one line of canonical JSON whose last field is a seal, the sha256 of all that stands before
it:

    {"bytes":81024,"created":…,…,"status":{"ok":1024},"seal":"9f86d081884c…"}
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipeline.system.canonical_json import KEY_FORMAT, canonical, key_of

_SEAL, _END = b',"seal":"', b'"}'
_LENGTH = len(_SEAL) + 64 + len(_END)
_TEXTS, _COUNTS = ("output", "key", "schema", "sha256", "digest"), ("rows", "bytes")


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


def sealed(receipt: Receipt) -> bytes:
    """Return the bytes of a receipt's file."""
    body = canonical(vars(receipt)).encode("utf-8", "surrogatepass")[:-1]
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode() + _END


def unsealed(data: bytes, output: str, key: str) -> Receipt:
    """Return the receipt that a file holds, which must be that of (output, key).

    Raises ValueError, saying what is wrong, where it is damaged or another artifact's.
    """
    body = data[:-_LENGTH]
    if data[-_LENGTH:] != _SEAL + hashlib.sha256(body).hexdigest().encode() + _END:
        raise ValueError("the receipt is damaged")
    try:
        receipt = Receipt(**json.loads(body + b"}"))
        status = receipt.status.values()
        sound = (
            all(isinstance(getattr(receipt, name), str) for name in _TEXTS)
            and all(
                type(value) is int
                for value in (*(getattr(receipt, name) for name in _COUNTS), *status)
            )
            and isinstance(receipt.created, int | float)
            and isinstance(receipt.provenance, dict)
        )
    except (TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise ValueError("the receipt has other fields than it should")
    if (receipt.output, receipt.key) != (output, key):
        raise ValueError("the receipt belongs to another artifact")
    if not _of_its_key(receipt):
        raise ValueError(
            "the receipt belongs to another artifact: its key is not that of what it says the key"
            " was made of"
        )
    return receipt


def _of_its_key(receipt: Receipt) -> bool:
    """Whether the key is the hash of what the provenance says it was made of.

    True where the provenance says nothing that this qfuse hashes.
    """
    identity, preimage = receipt.provenance.get("identity"), receipt.provenance.get("preimage")
    try:
        if isinstance(identity, list) and identity[:1] == [KEY_FORMAT]:  # a table of a data set
            return receipt.key == key_of(identity)
        if isinstance(preimage, dict) and preimage.get("format") == KEY_FORMAT:
            name = receipt.output.removeprefix(str(preimage.get("stage")))
            return name[:1] in ("", ".") and receipt.key == key_of([preimage, name[1:]])
    except (ValueError, RecursionError):
        return False
    return True
