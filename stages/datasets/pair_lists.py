"""Lists of pairs, in the four forms that LFW's and similar ones have; the first line tells which.

Conventions
    LFW        line 1 gives folds and pairs of each kind in a fold ("10 300"; the development lists
               give the second only); every fold is so many mated pairs (NAME I J), then as many
               non-mated ones (NAME I NAME J).
    Bare       the same pairs without such a line, in any order: three fields are a mated pair, four
               a non-mated one.
    Flat       FILE FILE LABEL; the label is 1 (mated), 0 or -1 (non-mated), as a number, or True or
               False. If files are named by numbers, all lines together tell the form: each has such
               a label, and some a 0 or no NAME.
    Two lines  FILE LABEL twice for each pair, one line after the other and with the same label, as
               CALFW's and CPLFW's authors write them.
    Fields     stand between blanks, tabs, commas or semicolons. Blank lines do not count, nor does
               a heading in line 1, the last word of which is one of HEADINGS. A path may have
               backslashes.
    Fold       counts from 0, as line 1 says. If nothing does, ten folds of the same length, if
               all have as many mated pairs; else none (-1).
    Line       counts from 1, blank ones and the heading too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from stages.datasets.problems import SHOWN_PROBLEMS, Problems

FOLDS = 10
LABELS = {
    **dict.fromkeys(("1", "1.0", "true"), True),
    **dict.fromkeys(("0", "0.0", "-1", "-1.0", "false"), False),
}
HEADINGS = {
    "label",
    "labels",
    "same",
    "issame",
    "is_same",
    "mated",
    "is_mated",
    "match",
    "target",
    "imagenum2",
}
_SEPARATORS = ("\t", ",", ";", None)  # None: blanks
_NUMBER = re.compile(r"[0-9]{1,9}")
_MAX_FOLDS = 1000

NumberedLine = tuple[int, str]  # its number, and what it says
Fields = list[str]


@dataclass(frozen=True)
class ListedPair:
    """Two faces as a list names them: NAME_0001 in LFW's forms, else a path with slashes."""

    line: int  # the first, if there are two
    a: str
    b: str
    mated: bool


@dataclass(frozen=True)
class PairList:
    """Pairs in the order of the list, and the fold of each.

    `flat`: they name files, not people's images by number.
    """

    pairs: Sequence[ListedPair] = ()
    fold: Sequence[int] = ()
    flat: bool = False


def read_pairs(data: bytes, name: str, problems: Problems) -> PairList:
    """Return the pairs of a list called `name`; what is wrong goes to `problems`, by line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add(name, [f"it is not UTF-8 text ({error.reason} at byte {error.start})"])
        return PairList()
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if lines and _split_fields(lines[0][1], _is_heading)[-1].lower() in HEADINGS:
        lines = lines[1:]
    number, first = lines[0] if lines else (1, "")
    if header := _folds_and_pairs(first):
        return _with_header(lines, *header, name, problems)
    form = _form_of_lines([line for _, line in lines])
    if not form:
        pair = "NAME I J, NAME I NAME J, FILE FILE 1 (or 0), or FILE 1 (or 0) on each of two lines"
        wanted = f"the number of folds and of pairs, as '10 300', or a pair: {pair}"
        problems.add(name, [f"line {number} should be {wanted}; found {first!r:.60}"])
        return PairList()
    if form == "half":
        found = _pairs_of_two_lines(lines, name, problems)
    else:
        found = _pairs_of_lines(lines, [None] * len(lines), form == "flat", name, problems)
    return PairList(found, _even_folds([pair.mated for pair in found]), form != "named")


def _split_fields(line: str, fits: Callable[[Fields], bool]) -> Fields:
    """Return the fields of a line, split at the first separator that makes them fit.

    If none does, at the first separator that the line holds.
    """
    split = [
        _strip_fields(line.split(each)) for each in _SEPARATORS if each is None or each in line
    ]
    return next(filter(fits, split), split[0])


def _strip_fields(fields: Fields) -> Fields:
    """Return fields without blanks around them, and without empty fields at the end.

    Tables of several forms end lines so.
    """
    fields = [field.strip() for field in fields]
    while len(fields) > 1 and not fields[-1]:
        fields.pop()
    return fields


def _is_heading(fields: Fields) -> bool:
    return len(fields) > 1 and fields[-1].lower() in HEADINGS


def _is_counts(fields: Fields) -> bool:
    return len(fields) in (1, 2) and all(map(_NUMBER.fullmatch, fields))


def _is_named(fields: Fields) -> bool:
    # NAME I J, or NAME I NAME J
    numbers = {3: fields[1:], 4: fields[1::2]}.get(len(fields), [])
    return bool(numbers) and all(fields) and all(map(_NUMBER.fullmatch, numbers))


def _is_flat(fields: Fields) -> bool:
    return len(fields) == 3 and all(fields) and fields[2].lower() in LABELS


def _is_half(fields: Fields) -> bool:
    return len(fields) == 2 and all(fields) and fields[1].lower() in LABELS


def _folds_and_pairs(line: str) -> tuple[int, int] | None:
    """Return (folds, pairs of each kind in a fold); the development lists give the second only."""
    fields = _split_fields(line, _is_counts)
    if not _is_counts(fields):
        return None
    folds, each = map(int, fields if len(fields) == 2 else ("1", *fields))
    return (folds, each) if 1 <= folds <= _MAX_FOLDS and each >= 1 else None


def _form_of_lines(lines: Sequence[str]) -> Literal["half", "flat", "named", ""]:
    """Return the form of a list without a header; "" if its first line has no known form."""
    first = lines[0] if lines else ""
    half, named, flat = (_split_fields(first, fits) for fits in (_is_half, _is_named, _is_flat))
    if _is_half(half) and not _NUMBER.fullmatch(half[0]):
        return "half"
    if _is_named(named):
        every = [_split_fields(line, _is_flat) for line in lines]
        numbers = all(map(_is_flat, every)) and (
            any(not LABELS[fields[2].lower()] for fields in every)
            or all(_NUMBER.fullmatch(fields[0]) for fields in every)
        )
        return "flat" if numbers else "named"
    if len(named) in (3, 4) and _NUMBER.fullmatch(named[1]):
        return "named"
    return "flat" if len(flat) == 3 else ""


def _with_header(
    lines: Sequence[NumberedLine], folds: int, each: int, name: str, problems: Problems
) -> PairList:
    expected, rows = folds * 2 * each, len(lines) - 1
    if rows != expected:
        problems.add(
            name,
            [
                f"line {lines[0][0]} announces {folds} folds of 2 × {each} pairs = {expected},"
                f" found {rows}"
            ],
        )
    mated = [row % (2 * each) < each for row in range(rows)]
    return PairList(
        _pairs_of_lines(lines[1:], mated, False, name, problems),
        [row // (2 * each) for row in range(rows)],
    )


def _pairs_of_lines(
    lines: Sequence[NumberedLine],
    mated: Sequence[bool | None],
    flat: bool,
    name: str,
    problems: Problems,
) -> list[ListedPair]:
    """Return the pairs of lines, mated if known (None: as the line says)."""
    pairs, words = [], []
    for (number, line), is_mated in zip(lines, mated, strict=True):
        try:
            pairs.append(
                ListedPair(number, *(_flat_pair(line) if flat else _named_pair(line, is_mated)))
            )
        except ValueError as problem:
            heading = "; if it is a heading, remove it" if flat and number == lines[0][0] else ""
            words.append(f"line {number}: {problem}{heading}")
    problems.add(name, words[:SHOWN_PROBLEMS], len(words))
    return pairs


def _named_pair(line: str, mated: bool | None) -> tuple[str, str, bool]:
    """Return the two faces of a line in LFW's form.

    Raises ValueError, which says what is wrong with the line.
    """
    fields = _split_fields(line, _is_named)
    forms = {True: "NAME I J (a mated pair)", False: "NAME I NAME J (a non-mated pair)"}
    form = " or ".join(forms.values()) if mated is None else forms[mated]
    widths = {None: (3, 4), True: (3,), False: (4,)}
    if len(fields) not in widths[mated]:
        raise ValueError(f"expected {form}, found {line!r:.80}")
    if not _is_named(fields):
        raise ValueError(f"expected {form} with image numbers I and J, found {line!r:.80}")
    name_a, a, name_b, b = (
        fields if len(fields) == 4 else (fields[0], fields[1], fields[0], fields[2])
    )
    return _labelled_pair(
        f"{name_a}_{a.zfill(4)}", f"{name_b}_{b.zfill(4)}", "1" if len(fields) == 3 else "0"
    )


def _flat_pair(line: str) -> tuple[str, str, bool]:
    """Return the two files of a line, and whether they are mated.

    Raises ValueError, which says what is wrong with the line.
    """
    fields = _split_fields(line, _is_flat)
    if len(fields) != 3 or not all(fields):
        raise ValueError(f"expected FILE FILE 1 or 0, as line 1 has it, found {line!r:.80}")
    return _labelled_pair(_clean_path(fields[0]), _clean_path(fields[1]), fields[2])


def _pairs_of_two_lines(
    lines: Sequence[NumberedLine], name: str, problems: Problems
) -> list[ListedPair]:
    """Return the pairs of a list of two lines a pair."""
    pairs, words = [], []
    for row in range(0, len(lines), 2):
        number = lines[row][0]
        try:
            fields = [_split_fields(line, _is_half) for _, line in lines[row : row + 2]]
            if len(fields) != 2 or any(len(each) != 2 or not all(each) for each in fields):
                raise ValueError("expected two lines, FILE 1 (or 0) each, as line 1 has it")
            (a, label), (b, other) = fields
            if label != other:
                raise ValueError(
                    f"its pair has two labels, {label!r:.40} and, on the next line, {other!r:.40}"
                )
            pairs.append(ListedPair(number, *_labelled_pair(_clean_path(a), _clean_path(b), label)))
        except ValueError as problem:
            words.append(f"line {number}: {problem}")
    problems.add(name, words[:SHOWN_PROBLEMS], len(words))
    return pairs


def _clean_path(field: str) -> str:
    """Return a path with slashes, and without leading "." or ".." (the list's own folder)."""
    parts = [*PurePosixPath(field.replace("\\", "/")).parts]
    while parts and parts[0] == "..":
        parts.pop(0)
    return str(PurePosixPath(*parts)) if parts else field


def _labelled_pair(a: str, b: str, label: str) -> tuple[str, str, bool]:
    """Return two faces and what their label says.

    Raises ValueError for an unknown label, and for one face twice.
    """
    if label.lower() not in LABELS:
        raise ValueError(f"expected the label 1 (mated), 0 or -1 (non-mated), found {label!r:.40}")
    if a == b:
        raise ValueError(f"compares {a} with itself")
    return a, b, LABELS[label.lower()]


def _even_folds(mated: Sequence[bool]) -> list[int]:
    """Return ten folds of equal length if all have equally many mated pairs; else none."""
    count = len(mated)
    if count and count % FOLDS == 0 and np.ptp(np.reshape(mated, (FOLDS, -1)).sum(axis=1)) == 0:
        return [row * FOLDS // count for row in range(count)]
    return [-1] * count
