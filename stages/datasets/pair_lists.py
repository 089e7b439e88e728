"""Lists of pairs, in the four forms in which LFW's and those of its kind go round. The form is told by line 1.

Conventions
    LFW        line 1 gives folds and pairs of each kind in a fold ("10 300"; the development lists give the second only);
               every fold is so many mated pairs (NAME I J), then as many non-mated ones (NAME I NAME J).
    Bare       the same pairs without such a line, in any order: three fields are a mated pair, four a non-mated one.
    Flat       FILE FILE LABEL between blanks, tabs or commas; the label is 1 (mated), 0 or -1 (non-mated).
    Two lines  FILE LABEL twice for each pair, one line after the other and with the same label, as CALFW's and CPLFW's
               authors write them.
    Fold       counts from 0, as line 1 says. Where nothing does, ten folds of the same length, if all have as many mated
               pairs; else none (-1).
    Line       counts from 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.datasets.ijb_problems import SHOWN, Problems

FOLDS = 10
LABELS = {"1": True, "0": False, "-1": False}
_NUMBER = re.compile(r"[0-9]{1,9}")
_MAX_FOLDS = 1000


@dataclass(frozen=True)
class Pair:
    """Two faces as a list names them, in LFW's forms as NAME_0001, and in the others as it stands there."""

    line: int  # the first, where there are two
    a: str
    b: str
    mated: bool


@dataclass(frozen=True)
class PairList:
    """Pairs in the order of the list, and the fold of each. `flat`: they name files, not people's images by number."""

    pairs: Sequence[Pair] = ()
    fold: Sequence[int] = ()
    flat: bool = False


def read_pairs(data: bytes, name: str, problems: Problems) -> PairList:
    """Return the pairs of a list called `name`; what is wrong goes to `problems`, by line."""
    try:
        lines = data.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        problems.add(name, [f"it is not UTF-8 text ({error.reason} at byte {error.start})"])
        return PairList()
    first = lines[0] if lines else ""
    if header := _header(first):
        return _with_header(lines, *header, name, problems)
    if len(_cells(first)) == 2 and _cells(first)[1] in LABELS and not _NUMBER.fullmatch(_cells(first)[0]):
        found = _doubled(lines, name, problems)
        return PairList(found, _even_folds([pair.mated for pair in found]), True)
    flat = len(_cells(first)) == 3 and not _NUMBER.fullmatch(_cells(first)[1])
    if not flat and not (len(first.split()) in (3, 4) and _NUMBER.fullmatch(first.split()[1])):
        pair = "NAME I J, NAME I NAME J, FILE FILE 1 (or 0), or FILE 1 (or 0) on each of two lines"
        wanted = f"the number of folds and of pairs, as '10 300', or a pair: {pair}"
        problems.add(name, [f"line 1 should be {wanted}; found {first!r:.60}"])
        return PairList()
    found = _read(lines, 1, [None] * len(lines), flat, name, problems)
    return PairList(found, _even_folds([pair.mated for pair in found]), flat)


def _header(line: str) -> tuple[int, int] | None:
    """Return (folds, pairs of each kind in a fold); the development lists give the second only."""
    fields = line.split()
    numbers = [int(field) for field in fields if _NUMBER.fullmatch(field)]
    if len(numbers) != len(fields) or len(numbers) not in (1, 2):
        return None
    folds, each = numbers if len(numbers) == 2 else (1, *numbers)
    return (folds, each) if 1 <= folds <= _MAX_FOLDS and each >= 1 else None


def _with_header(lines: Sequence[str], folds: int, each: int, name: str, problems: Problems) -> PairList:
    expected, rows = folds * 2 * each, len(lines) - 1
    if rows != expected:
        problems.add(name, [f"line 1 announces {folds} folds of 2 × {each} pairs = {expected}, found {rows}"])
    mated = [row % (2 * each) < each for row in range(rows)]
    return PairList(_read(lines[1:], 2, mated, False, name, problems), [row // (2 * each) for row in range(rows)])


def _read(
    lines: Sequence[str], start: int, mated: Sequence[bool | None], flat: bool, name: str, problems: Problems
) -> list[Pair]:
    """Return the pairs of lines from number `start` on, mated as it is known to be (None: as the line says)."""
    pairs, words = [], []
    for number, (line, is_mated) in enumerate(zip(lines, mated, strict=True), start):
        try:
            pairs.append(Pair(number, *(_flat(line) if flat else _named(line, is_mated))))
        except ValueError as problem:
            words.append(f"line {number}: {problem}")
    problems.add(name, words[:SHOWN], len(words))
    return pairs


def _named(line: str, mated: bool | None) -> tuple[str, str, bool]:
    """Return the two faces of a line in LFW's manner. Raises ValueError saying what is wrong with it."""
    parts = line.split()
    forms = {True: "NAME I J (a mated pair)", False: "NAME I NAME J (a non-mated pair)"}
    form = " or ".join(forms.values()) if mated is None else forms[mated]
    if len(parts) not in ((3, 4) if mated is None else (3,) if mated else (4,)):
        raise ValueError(f"expected {form}, found {line!r:.80}")
    name_a, a, name_b, b = parts if len(parts) == 4 else (parts[0], parts[1], parts[0], parts[2])
    if not (_NUMBER.fullmatch(a) and _NUMBER.fullmatch(b)):
        raise ValueError(f"expected {form} with image numbers I and J, found {line!r:.80}")
    return _told(f"{name_a}_{a.zfill(4)}", f"{name_b}_{b.zfill(4)}", "1" if len(parts) == 3 else "0")


def _cells(line: str) -> list[str]:
    separator = next((each for each in "\t," if each in line), None)
    return [cell.strip() for cell in line.split(separator)]


def _flat(line: str) -> tuple[str, str, bool]:
    """Return the two files of a line and whether they are mated. Raises ValueError saying what is wrong with it."""
    cells = _cells(line)
    if len(cells) != 3 or not all(cells):
        raise ValueError(f"expected FILE FILE 1 or 0, as line 1 has it, found {line!r:.80}")
    return _told(*cells)


def _doubled(lines: Sequence[str], name: str, problems: Problems) -> list[Pair]:
    """Return the pairs of a list of two lines a pair."""
    pairs, words = [], []
    for number in range(1, len(lines) + 1, 2):
        try:
            cells = [_cells(line) for line in lines[number - 1 : number + 1]]
            if len(cells) != 2 or any(len(each) != 2 or not all(each) for each in cells):
                raise ValueError("expected two lines, FILE 1 (or 0) each, as line 1 has it")
            (a, label), (b, other) = cells
            if label != other:
                raise ValueError(f"its pair has two labels, {label!r:.40} and, on the next line, {other!r:.40}")
            pairs.append(Pair(number, *_told(a, b, label)))
        except ValueError as problem:
            words.append(f"line {number}: {problem}")
    problems.add(name, words[:SHOWN], len(words))
    return pairs


def _told(a: str, b: str, label: str) -> tuple[str, str, bool]:
    """Return two faces and what their label says. Raises ValueError for one that says nothing, and for one face twice."""
    if label not in LABELS:
        raise ValueError(f"expected the label 1 (mated), 0 or -1 (non-mated), found {label!r:.40}")
    if a == b:
        raise ValueError(f"compares {a} with itself")
    return a, b, LABELS[label]


def _even_folds(mated: Sequence[bool]) -> list[int]:
    """Return ten folds of the same length where each has as many mated pairs as the others; else none."""
    count = len(mated)
    if count and count % FOLDS == 0 and np.ptp(np.reshape(mated, (FOLDS, -1)).sum(axis=1)) == 0:
        return [row * FOLDS // count for row in range(count)]
    return [-1] * count
