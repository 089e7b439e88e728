"""What is wrong with a data set: gathered from all its files, and refused in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import InvalidInput

SHOWN_PROBLEMS = 10  # problems of one file, or of one kind, that are printed


@dataclass
class Problems:
    """What is wrong, by file or kind of problem: a count, and the first ten in words."""

    root: object
    _found: dict[str, list[str]] = field(default_factory=dict)
    _count: dict[str, int] = field(default_factory=dict)

    def add(self, where: str, words: Sequence[str], count: int | None = None) -> None:
        """Add problems of a file: some of them in words, `count` in all (default: those)."""
        shown = self._found.setdefault(where, [])
        shown.extend(words[: SHOWN_PROBLEMS - len(shown)])
        self._count[where] = self._count.get(where, 0) + (len(words) if count is None else count)

    @property
    def count(self) -> int:
        """How many there are, of all files."""
        return sum(self._count.values())

    def __bool__(self) -> bool:
        return self.count > 0

    def refuse(self) -> None:
        """Raise InvalidInput with all that was added, if anything was."""
        if not self:
            return
        parts = []
        for where, words in ((where, words) for where, words in self._found.items() if words):
            more = self._count[where] - len(words)
            parts.append(
                f"{where}: " + "; ".join(words) + (f" (and {more:,} more)" if more else "")
            )
        raise InvalidInput(f"{self.root}: " + "; ".join(parts) + ".")
