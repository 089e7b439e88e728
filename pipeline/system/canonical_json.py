"""What names an artifact: canonical JSON of everything that decides its numbers, hashed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_FORMAT = "qfuse/1"  # part of every pre-image: says how keys are hashed


def canonical(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no nan: one text for one value."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def key_of(value: Any) -> str:
    """Return sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def changed_fields(old: Any, new: Any, path: str = "") -> list[str]:
    """Return the fields in which two key pre-images differ, as in 'options.flip: none → add'."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in sorted({*old, *new}):
            found += changed_fields(
                old.get(name, _ABSENT), new.get(name, _ABSENT), f"{path}.{name}" if path else name
            )
        return found
    # not `==`, for which 1 is 1.0 is True
    if _ABSENT not in (old, new) and canonical(old) == canonical(new):
        return []
    if isinstance(old, list) and isinstance(new, list) and (len(old) > 3 or len(new) > 3):
        return [f"{path} changed"]
    return [f"{path}: {_short(old)} → {_short(new)}"]


_ABSENT = object()


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    words = canonical(value).strip('"')
    return words if len(words) <= 40 else words[:12] + "…"
