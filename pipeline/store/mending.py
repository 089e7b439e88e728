"""Work that meets damage in a store: what is damaged is set aside, and the work begins anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.errors import CorruptArtifact, ResourceRefused, counted
from pipeline.store.maintenance import GONE, DamagedArtifact
from pipeline.store.store import Store
from pipeline.system.signs_of_life import pulse

T = TypeVar("T")
_ASIDE, _HIDDEN = ("was set aside", "were set aside"), ("counts as absent", "count as absent")
_NAMED = 5  # damaged artifacts that are named one by one


def mended(
    work: Callable[[], T],
    tell: Callable[[str], None],
    hide: Callable[[tuple[str, str]], None] | None = None,
) -> T:
    """Return what `work` returns.

    A stored artifact that it finds damaged is set aside, and `work` begins anew, so that exactly
    what is damaged is computed again.

    With the first one all others are looked for, so that a thousand lost files or flipped bits
    cost one new beginning, not a thousand. Those that `work` would go on to read (`doubted`) are
    checked byte by byte, the rest without reading their files. `tell` gets a sentence for each of
    the first few.

    Raises CorruptArtifact if the same artifact is found damaged twice, and ResourceRefused if one
    may not be set aside. If `hide` is given, it gets the name of such a one instead, and has to
    keep `work` from meeting it again.
    """
    met: dict[Path, set[tuple[str, str]]] = {}  # by store
    hidden: set[tuple[str, str]] = set()
    while True:
        try:
            return work()
        except CorruptArtifact as damage:
            name = damage.output, damage.key
            if not damage.key or damage.root is None or name in met.get(damage.root, ()):
                raise
            store, hiding, away = Store.existing(damage.root), None, _ASIDE
            try:
                aside = store.set_aside(*name, str(damage))
                then = "It is no longer as it was found"
                if aside:
                    then = _what_was_done(str(damage), away[0])
                tell(f"{damage} {then}.")
            except ResourceRefused as refused:
                if hide is None:
                    raise
                hiding, away = hide, _HIDDEN
                tell(f"{damage} It {away[0]}, because it cannot be set aside: {refused}")
                hide(name)
                hidden.add(name)
            if damage.root not in met or damage.doubted:
                pulse.at("looking for what else is damaged in the store")
                others = [
                    found
                    for found in store.damaged(damage.doubted)
                    if (found.output, found.key) not in hidden
                ]
                if hiding is None:
                    others = [
                        found
                        for found in others
                        if store.set_aside(found.output, found.key, found.reason)
                    ]
                else:
                    for found in others:
                        hiding((found.output, found.key))
                        hidden.add((found.output, found.key))
                _tell_others(others, away, tell)
            met.setdefault(damage.root, set()).add(name)


def _what_was_done(reason: str, done: str) -> str:
    """Say what was done about damage: of a file that is gone, only the receipt can be set aside."""
    return f"{'Its receipt' if GONE in reason and done in _ASIDE else 'It'} {done}"


def _tell_others(
    problems: Sequence[DamagedArtifact], away: tuple[str, str], tell: Callable[[str], None]
) -> None:
    for problem in problems[:_NAMED]:
        tell(f"{problem.path}: {problem.reason}. {_what_was_done(problem.reason, away[0])}.")
    if len(problems) > _NAMED:
        counts = Counter(problem.output for problem in problems[_NAMED:])
        by = ", ".join(f"{output}: {count:,}" for output, count in counts.items())
        one = counts.total() == 1
        are, they = ("is", f"It {away[0]}") if one else ("are", f"They {away[1]}")
        tell(f"{counted(counts.total(), 'more artifact')} {are} damaged ({by}). {they}.")
