"""A receipt: what was committed, in a small file that protects itself.

It is one line of canonical JSON whose last field is a seal, the sha256 of all that stands before it:

    {"bytes":81024,"created":…,…,"status":{"ok":1024},"seal":"9f86d081884c…"}
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipeline.keys import canonical

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
    """Return the receipt that a file holds, which is to be that of (output, key).

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
            and all(type(value) is int for value in (*(getattr(receipt, name) for name in _COUNTS), *status))
            and isinstance(receipt.created, int | float)
            and isinstance(receipt.provenance, dict)
        )
    except (TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise ValueError("the receipt has other fields than it should")
    if (receipt.output, receipt.key) != (output, key):
        raise ValueError("the receipt belongs to another artifact")
    return receipt
