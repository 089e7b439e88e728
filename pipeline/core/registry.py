"""Names → classes and functions of each kind, built in or from plug-ins.

Built-in and third-party parts register in the same way: a decorator, loaded by entry point. A
distribution adds parts by naming a module under the entry-point group `qfuse.plugins`; importing it
registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar

from pipeline.errors import InvalidInput, unknown

T = TypeVar("T")
_parts: dict[str, dict[str, Any]] = {}
_loaded = False


def register(kind: str, name: str) -> Callable[[T], T]:
    """Return a decorator that makes a part known as `name`.

    Raises ValueError if the name is taken.
    """

    def decorate(part: T) -> T:
        taken = _parts.setdefault(kind, {}).setdefault(name, part)
        # a module that is loaded again brings its own parts
        if taken is not part and _source(taken) != _source(part):
            raise ValueError(f"the {kind} {name!r} is registered twice: {taken} and {part}.")
        _parts[kind][name] = part
        return part

    return decorate


def lookup(kind: str, name: str) -> Any:
    """Return a registered part. Raises InvalidInput with the nearest valid name."""
    known = available(kind)
    if name not in known:
        raise InvalidInput(unknown(kind, name, known))
    return known[name]


def available(kind: str) -> dict[str, Any]:
    """Return all parts of one kind by name, loading every plug-in first."""
    global _loaded
    if not _loaded:
        _loaded = True
        try:
            for point in entry_points(group="qfuse.plugins"):
                point.load()
        except BaseException:
            _loaded = False
            raise
    return _parts.get(kind, {})


def _source(part: Any) -> Any:
    return (part.__module__, part.__qualname__) if hasattr(part, "__qualname__") else id(part)
