"""csv_text: every table that is written as CSV, safe to open in a spreadsheet.

Conventions
    Guarded   a text that a spreadsheet would take for a formula gets an apostrophe before it: one
              that begins with = + - @ (or their full-width forms), a tab or a line break, and is no
              number. So an id `=cmd|…` is an id everywhere.
    Numbers   are written as they are, also negative ones and those that came as text.
    Lines     end with a line feed; a field with a line break of any kind is quoted.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile("[=+\\-@＝＋－＠\t\r\n]")
_NUMBER = re.compile(
    r"[+-]?([0-9.,]*[0-9][0-9.,]*(e[+-]?[0-9]+)?%?|inf|infinity|nan)?", re.IGNORECASE
)


def guarded(value: Any) -> Any:
    """Return a field as it is written: with an apostrophe before text that looks like a formula.

    >>> guarded("=1+1"), guarded("-1.5")
    ("'=1+1", '-1.5')
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def of_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    r"""Return a table with a header line as CSV.

    >>> of_rows(["face_id", "quality"], [["=a.jpg", 0.5]])
    "face_id,quality\n'=a.jpg,0.5\n"
    """
    lines = _Lines()
    writer = csv.writer(lines, lineterminator=_END)
    writer.writerows([*map(guarded, row)] for row in [header, *rows])
    return lines.text()


def of_frame(frame: pd.DataFrame) -> str:
    """Return a data frame, without its index, as CSV."""
    lines, safe = _Lines(), frame.rename(columns=guarded)
    for name in safe.columns:
        if safe[name].dtype.kind not in "biuf":
            safe[name] = safe[name].map(guarded)
    safe.to_csv(lines, index=False, lineterminator=_END)  # type: ignore[call-overload]
    return lines.text()


_END = "\r\n"  # as this ends lines for the writer, it quotes fields with either of both


class _Lines:
    """A file to which a csv.writer writes, a line at a time."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, line: str) -> int:
        self._lines.append(line.removesuffix(_END))
        return len(line)

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)
