"""Quality scores as other programs write them: what separates fields, and which are numbers.

Conventions
    Separator   a tab, a semicolon or a comma, whichever line 1 has most of. If it has none of
                them, blanks; also blanks if each line is the name of a file, a blank and a number,
                even if the name holds commas.
    Number      decimal or scientific (0.5, .5, 5e-1), at most 1e30 in size; nan, or a blank in a
                table, is a face without a score. Anything else in place of a number (1_0, inf,
                0x1, 0,5) is refused.
    Header      line 1, unless its last field was meant as a number. Even then it is a header if its
                first field is empty (pandas) or a column name (path), or has neither suffix nor
                slash if all others have one, or a field of it is the column that is asked
                for. Without one a line is a score, or a face's name and a score, and the name may
                hold blanks (CR-FIQA's lists).
    OFIQ        lines end with a separator, which is no column, and -1 as UnifiedQualityScore, or in
                a column NAME.scalar, is a face that could not be assessed.
"""

from __future__ import annotations

import csv
import io
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import InvalidInput

UNIFIED = "UnifiedQualityScore"
SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "blanks"}
# in size, as in the lists of `ijb`: what is beyond it is no score, and float32 ends at 3e38
LARGEST_SCORE = 1e30
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE)
# of columns
_NAMES = re.compile(
    r"((face|file|image|img|sample)?[ _-]?(id|name|path))|face|file|image|img", re.IGNORECASE
)
_SUFFIX = re.compile(r"\.[A-Za-z]\w*$")


@dataclass(frozen=True)
class Table:
    """A table of texts: its header (None if it has none), its other rows, and how it is written."""

    header: list[str] | None
    rows: list[list[str]]
    lines: list[int]  # counted from 1, with the header and empty lines
    separator: str  # in words


def separator_of(line: str) -> str:
    """Return what separates the fields of a line; a comma if nothing does.

    >>> separator_of("face;quality"), separator_of("a.jpg 0.5")
    (';', ' ')
    """
    found = max(("\t", ";", ","), key=line.count)
    if found in line:
        return found
    return " " if " " in line.strip() else ","


def parsed_number(field: str) -> float:
    """Return the number in a field; nan if the field is blank or nan.

    Raises ValueError, which says what the field is instead.

    >>> parsed_number("5e-1"), parsed_number(" ")
    (0.5, nan)
    """
    value = field.strip()
    if value.lower() in ("", "nan"):
        return math.nan
    if _DECIMAL_COMMA.fullmatch(value):
        raise ValueError("has a decimal comma: write numbers with a point")
    if not _NUMBER.fullmatch(value):
        raise ValueError("is not a number, such as 0.5 or 5e-1; blank or nan means no score")
    if abs(float(value)) > LARGEST_SCORE:
        raise ValueError("is larger than any score may be, 1e30 in size")
    return float(value)


def table_of(content: str, column: str | None) -> Table:
    r"""Return what a text with at least one line that is not blank holds.

    Raises csv.Error for quotes that do not end. `column`, which the header should have, may hold
    blanks.

    >>> table = table_of("face,quality\na.jpg,0.5\n", None)
    >>> table.header, table.rows, table.separator
    (['face', 'quality'], [['a.jpg', '0.5']], 'commas')
    """
    filled = [
        (i, line) for i, line in enumerate(io.StringIO(content, newline=None), 1) if line.strip()
    ]
    words = filled[0][1].split()
    separator = (
        " " if all(_is_name_and_number(line) for _, line in filled) else separator_of(filled[0][1])
    )
    headed = not is_number(words[-1])
    fits = len(filled) > 1 and len(filled[1][1].split()) == len(words)
    if separator == " " and headed and column not in words and not fits:
        separator = ","  # a single column, whose name holds blanks
    if separator == " ":
        # several numbers are no name and score
        named = not headed and not any(map(is_number, words[1:-1]))
        rows = [line.rsplit(None, 1) if named else line.split() for _, line in filled]
        lines = [i for i, _ in filled]
    else:
        rows, lines = _of_csv(content, separator)
    if all(len(row) > 1 and row[-1] == "" for row in rows):
        rows = [row[:-1] for row in rows]
    if _is_header(rows, column):
        return Table(rows[0], rows[1:], lines[1:], SEPARATORS[separator])
    return Table(None, rows, lines, SEPARATORS[separator])


def header_of(table: Table, column: str | None, where: str) -> list[str]:
    """Return column names for a table without a header; the last one, `column`, holds the scores.

    Raises InvalidInput if a line holds more than a name and a score.
    """
    width = len(table.rows[0])
    if width > 2:
        found = f"{width} fields between {table.separator}"
        raise InvalidInput(
            f"{where}: line 1 should be a header, or a face's name and its score; found {found}."
        )
    return ["face", column or "quality"][-width:]


def likely_score_column(header: Sequence[str]) -> str:
    """Return a column that may hold the scores, for an example on a command line."""
    names = [
        name
        for name in header
        if name == UNIFIED or "quality" in name.lower() or "score" in name.lower()
    ]
    return shlex.quote([*names, header[-1]][0])


def minus_one_is_none(column: str) -> bool:
    """Whether -1 in a column says that a face could not be assessed, as OFIQ writes it."""
    return column == UNIFIED or column.endswith(".scalar")


def _of_csv(content: str, separator: str) -> tuple[list[list[str]], list[int]]:
    """Return the rows of a CSV that are not empty, and the line in which each begins."""
    rows, lines, end = list[list[str]](), list[int](), 0
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    for row in reader:
        if row:
            rows.append(row)
            lines.append(end + 1)
        end = reader.line_num
    return rows, lines


def _is_header(rows: Sequence[Sequence[str]], column: str | None) -> bool:
    first = rows[0]
    number_last = is_number(first[-1]) or (len(first) > 1 and not first[-1].strip())
    if len(first) == 1:
        return column == first[0] or not number_last
    paths = [_is_path(row[0]) for row in rows]
    named = not first[0].strip() or _NAMES.fullmatch(first[0].strip())
    if named or (len(rows) > 1 and not paths[0] and all(paths[1:])):
        return True
    return not number_last or (column in first and not paths[0])


def _is_name_and_number(line: str) -> bool:
    name, _, last = line.strip().rpartition(" ")
    return bool(_SUFFIX.search(name.rstrip())) and is_number(last)


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or bool(_SUFFIX.search(name.rstrip()))


def is_number(field: str) -> bool:
    """Whether a field is what `parsed_number` reads, or what other programs take for a number.

    >>> is_number("0,5"), is_number("inf"), is_number("a.jpg")
    (True, True, False)
    """
    try:
        float(field)
    except ValueError:
        return bool(_DECIMAL_COMMA.fullmatch(field.strip()))
    return True
