"""Texts of quality scores as other programs write them: what separates their fields, and which of these are numbers.

Conventions
    Separator   a tab, a semicolon or a comma: that of which line 1 has most. Where it has none of them, blanks.
    Number      as Python's float reads it; nan, or a blank in a table, is a face without a score.
    Header      line 1, unless its last field is a number. Without one a line is a score, or a face's name and a score, and
                the name may hold blanks (CR-FIQA's lists).
    OFIQ        a table with the columns Filename and UnifiedQualityScore: its lines end with a separator, which is no column,
                and -1 as UnifiedQualityScore, or in a column NAME.scalar, is a face that could not be assessed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from pipeline.errors import InvalidInput

UNIFIED = "UnifiedQualityScore"
SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "blanks"}


def separator_of(line: str) -> str:
    """Return what separates the fields of a line; a comma where nothing does."""
    found = max(("\t", ";", ","), key=line.count)
    return " " if found not in line and " " in line.strip() else found if found in line else ","


def is_number(field: str) -> bool:
    """Whether a field is a number, or nan."""
    try:
        float(field)
    except ValueError:
        return False
    return True


def rows_of(content: str, column: str | None) -> tuple[list[str] | None, list[list[str]], str]:
    """Return the header of a table (None: it has none), its other rows, and what separates their fields, in words.

    Raises csv.Error for quotes that do not end. `column`, which the header should have, may hold blanks.
    """
    filled = [line for line in content.splitlines() if line.strip()]
    separator, words = separator_of(filled[0]) if filled else ",", filled[0].split() if filled else [""]
    headed = not is_number(words[-1])
    if separator == " " and headed and column not in words:
        separator = ","  # a single column, whose name holds blanks
    if separator == " ":
        named = not headed and not any(map(is_number, words[1:-1]))  # several numbers are no name and score
        rows = [line.rsplit(None, 1) if named else line.split() for line in filled]
    else:
        found = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
        rows = [row for row in found if row]
    if rows and all(row[-1] == "" for row in rows) and len(rows[0]) > 1:
        rows = [row[:-1] for row in rows]
    if rows and is_number(rows[0][-1]):
        return None, rows, SEPARATORS[separator]
    header, *lines = rows or [[]]
    return header, lines, SEPARATORS[separator]


def header_of(lines: Sequence[Sequence[str]], column: str | None, separator: str, where: str) -> list[str]:
    """Return what the columns of a table without a header are called: the last one, `column`, holds the scores.

    Raises InvalidInput if a line holds more than a name and a score.
    """
    if len(lines[0]) > 2:
        found = f"{len(lines[0])} fields between {separator}"
        raise InvalidInput(f"{where}: line 1 should be a header, or a face's name and its score; found {found}.")
    return ["face", column or "quality"][-len(lines[0]) :]


def likely(header: Sequence[str]) -> str:
    """Return a column that may hold the scores, for an example."""
    names = [name for name in header if name == UNIFIED or "quality" in name.lower() or "score" in name.lower()]
    return names[0] if names else "quality"


def minus_one_is_none(header: Sequence[str], column: str) -> bool:
    """Whether -1 in a column says that a face could not be assessed, as OFIQ writes it."""
    return {"Filename", UNIFIED} <= set(header) and (column == UNIFIED or column.endswith(".scalar"))
