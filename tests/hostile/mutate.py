"""Damage to bytes, and values that are not what was asked for."""

from __future__ import annotations

from random import Random
from typing import Any

# What length fields, offsets and counts break at.
_EDGES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**62,
    2**63 - 1,
    2**64 - 1,
)


def damaged(rng: Random, data: bytes, most: int = 6, head: int = 0) -> bytes:
    """Return `data` with one to `most` damages; half of them in its first `head` bytes, where that
    is not 0.
    """
    for _ in range(rng.randint(1, most)):
        data = _damage(
            rng, data, min(len(data), head) if head and rng.random() < 0.5 else len(data)
        )
    return data


def _damage(rng: Random, data: bytes, reach: int) -> bytes:
    if not data or reach < 1:
        return rng.randbytes(4)
    at = rng.randrange(reach)
    kind = rng.randrange(8)
    if kind == 0:  # one bit
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:  # some bytes
        new = rng.randbytes(rng.randint(1, 8))
        return data[:at] + new + data[at + len(new) :]
    if kind == 2:  # a number at the edge of its type
        size = rng.choice((1, 2, 4, 8))
        edge = rng.choice(_EDGES) & (256**size - 1)
        return data[:at] + edge.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]
    if kind == 3:  # cut short
        return data[:at]
    stop = min(len(data), at + rng.randint(1, 64))
    if kind == 4:  # a piece left out
        return data[:at] + data[stop:]
    if kind == 5:  # a piece twice
        return data[:stop] + data[at:]
    if kind == 6:  # a piece from elsewhere
        other = rng.randrange(len(data))
        return data[:at] + data[other : other + stop - at] + data[stop:]
    # as a disk or a transfer leaves it
    return data[:at] + bytes([rng.choice((0, 0xFF))]) * (stop - at) + data[stop:]


TEXTS = (
    "",
    "0",
    "-1",
    "1e999",
    "nan",
    ".inf",
    "../../beside/secret",
    "/etc/passwd",
    "~root/x",
    "a\0b",
    "\ud800",
    "\udcff",
    "$",
    "$rule",
    "${",
    "${HOME}",
    "${QFUSE_NOT_SET}",
    "${QFUSE_NOT_SET:-${HOME}}",
    "quality-power(p=1e999)",
    "top-k(k=0)",
    "mean(",
    "é€𐍈\u202e\u200b",
    "x" * 300,
    "x/" * 200,
    "\n\r\t",
    "%s%n{0}",
)
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**400,
    0.0,
    -0.0,
    0.1,
    1e308,
    -1e308,
    5e-324,
    True,
    False,
)


def odd(rng: Random, depth: int = 3) -> Any:
    """Return a value of any type that JSON or YAML knows."""
    kind = rng.randrange(7 if depth else 4)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice((None, float("nan"), float("inf")))
    if kind in (2, 3):
        return rng.choice(TEXTS)
    if kind == 4:
        return [odd(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(TEXTS): odd(rng, depth - 1) for _ in range(rng.randint(0, 3))}


def changed(rng: Random, value: Any, chance: float = 0.15) -> Any:
    """Return a nested value with fields replaced by `odd` ones, left out, renamed or added."""
    if rng.random() < chance:
        return odd(rng)
    if isinstance(value, dict):
        found = {}
        for name, item in value.items():
            kind = rng.random()
            if kind > 0.06:
                found[name if kind > 0.1 else rng.choice((f"{name}x", name[:-1], *TEXTS))] = (
                    changed(rng, item, chance)
                )
        if rng.random() < chance / 2:
            found[rng.choice(TEXTS)] = odd(rng)
        return found
    if isinstance(value, list):
        return [changed(rng, item, chance) for item in value if rng.random() > 0.1]
    return value
