"""Lists of IJB-B and IJB-C as columns: read piece by piece, with every problem located.

Conventions
    List       UTF-8 lines of fields between single separators: a space (of qualities also a tab or
               a semicolon), or a comma in a csv file, where blanks beside the commas do not count
               and a value may not start with a quote. Lines count from 1, the header's too. Empty
               lines at the end do not count. A byte-order mark may stand at the file's start only.
    Kinds      id: a whole number from 0, in digits alone (int64); label: 0 or 1 (int8); number: a
               finite number (float64), at most 1e30 in size; score: such a number, or nan; text.
    Pieces     a list is never held whole as text: a piece is checked for its form, then parsed at C
               speed. Only a piece in which something is wrong is looked through line by line, to
               say what.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from pipeline.core.schema import Array
from pipeline.errors import InvalidInput
from pipeline.files.file_tree import Files, Folder, safe_name
from pipeline.system.regular_file import open_regular
from stages.datasets.ijb.lines import LARGEST_NUMBER, QUOTES, line_problems
from stages.datasets.problems import Problems

PIECE = 16 << 20  # bytes parsed at a time
_DTYPE: dict[str, Any] = {
    "id": np.dtype(np.int64),
    "label": np.dtype(np.int8),
    "number": np.dtype(np.float64),
    "score": np.dtype(np.float64),
    "text": np.dtype(object),
}
_MARK = b"\xef\xbb\xbf"  # byte-order mark
_TRUTH = (b"rue", b"RUE", b"alse", b"ALSE")  # what the parser would take for the numbers 1 and 0
_NAN_WORDS = [word + end for word in ("nan", "NaN", "NAN") for end in ("", " ")]  # of a score


@dataclass(frozen=True)
class Piece:
    """Some lines of a list: the number of the first, and a column for each name asked for."""

    line: int
    columns: dict[str, Array]


def read_list(
    files: Files, name: str, kinds: Mapping[str, str], problems: Problems, separator: str = " "
) -> dict[str, Array]:
    """Return the columns of a whole list without a header; what is wrong goes to `problems`."""
    return join_pieces(read_pieces(files, name, kinds, separator, problems), kinds)


def first_line(files: Files, name: str) -> str:
    """Return the first line of a file without what surrounds it; empty if there is none to read."""
    stream = open_file(files, name, Problems(files.root))
    if stream is None:
        return ""
    with stream:
        return stream.readline(1 << 16).decode("utf-8-sig", "replace").strip()


def read_csv(
    files: Files,
    name: str,
    kinds: Mapping[str, str],
    problems: Problems,
    optional: Sequence[str] = (),
    older: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Array]:
    """Return the named columns of a csv file with a header, in any order and case.

    Other columns are ignored.

    `optional`: those that may be missing, and are left out then. `older`: another name of a column,
    if its own is not there.
    """
    stream = open_file(files, name, problems)
    if stream is None:
        return {}
    with stream:
        header = stream.readline(1 << 16).decode("utf-8-sig", "replace").strip()
        there = [title.strip().upper() for title in header.split(",")]
        own = {before: title for title, before in older.items() if title not in there}
        there = [own.get(title, title) for title in there]
        lacking = [kind for kind in kinds if kind not in there and kind not in optional]
        twice = sorted({kind for kind in kinds if there.count(kind) > 1})
        quoted = [title for title in there if '"' in title and title.strip('" ') in kinds]
        if lacking or twice or quoted:
            quotes = QUOTES if quoted else ""
            called = [" or ".join(filter(None, (title, older.get(title)))) for title in lacking]
            words = [
                f"line 1: there is no column {each}, found {header!r:.120}{quotes}"
                for each in called
            ]
            words += [f"line 1: found {header!r:.120}{quotes}"] if quoted and not lacking else []
            problems.add(
                name, words + [f"line 1: column {title} is given twice" for title in twice]
            )
            return {}
        wanted = {title: kinds[title] for title in kinds if title in there}
        every = {
            title if title in wanted else f"#{i}": wanted.get(title, "")
            for i, title in enumerate(there)
        }
        return join_pieces(_parse(stream, name, every, ",", problems, 2), wanted)


def read_pieces(
    files: Files, name: str, kinds: Mapping[str, str], separator: str, problems: Problems
) -> Iterator[Piece]:
    """Yield a list without a header piece by piece; a wrong piece goes to `problems` instead."""
    stream = open_file(files, name, problems)
    if stream is not None:
        with stream:
            yield from _parse(stream, name, kinds, separator, problems, 1)


def join_pieces(parts: Iterator[Piece], kinds: Mapping[str, str]) -> dict[str, Array]:
    """Return the columns of all pieces."""
    found = [piece.columns for piece in parts]
    empty = {name: np.empty(0, _DTYPE[kind]) for name, kind in kinds.items()}
    return {
        name: np.concatenate([part[name] for part in found]) if found else empty[name]
        for name in kinds
    }


def bad_names(names: Array, files: Files) -> dict[int, str]:
    """Return row → sentence for names (n,) that lead out of the data set or name no file."""
    found = {}
    for row, name in enumerate(names.tolist()):
        if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
            try:
                safe_name(name, files.root)
            except InvalidInput:
                found[row] = f"the name {name!r:.100} points outside the data set, or at no file"
    return found


def open_file(files: Files, name: str, problems: Problems) -> BinaryIO | None:
    """Return a stream: in a folder that of the file itself, which may exceed `Files.read`."""
    try:
        if isinstance(files, Folder):
            return open_regular(files.path(name))
        return io.BytesIO(files.read(name))
    except FileNotFoundError:
        problems.add(name, ["there is no such file"])
    except InvalidInput as error:
        problems.add(name, [str(error).rstrip(".")])
    except OSError as error:
        problems.add(name, [f"it cannot be read ({error.strerror or error})"])
    return None


def _parse(
    stream: BinaryIO,
    name: str,
    kinds: Mapping[str, str],
    separator: str,
    problems: Problems,
    line: int,
) -> Iterator[Piece]:
    for chunk in _whole_lines(stream, line == 1):
        if len(chunk) > 2 * PIECE:
            problems.add(
                name, [f"line {line}: no end of a line in {PIECE:,} bytes, so this is not a list"]
            )
            return
        columns = _parsed_columns(chunk, kinds, separator)
        if columns is None or any(word in chunk for word in _TRUTH):
            wrong = None
        else:
            wrong = _wrong_lines(columns, kinds)
        words, count = list[str](), 0
        if wrong is None or wrong.any():
            words, count = line_problems(chunk, kinds, separator, line, wrong)
        if columns is None and not count:
            words = [
                f"the {PIECE:,} bytes from line {line} on are not a list of"
                f" {', '.join(filter(None, kinds.values()))}"
            ]
            count = 1
        problems.add(name, words, count)
        if columns is not None and not count:
            yield Piece(line, columns)
        line += chunk.count(b"\n")


def _whole_lines(stream: BinaryIO, whole_file: bool) -> Iterator[bytes]:
    """Yield whole lines, each ending in a line feed.

    A byte-order mark, carriage returns and blank lines at the end are left out.
    """
    rest = stream.read(3).removeprefix(_MARK) if whole_file else b""
    while data := stream.read(PIECE):
        cut = data.rfind(b"\n") + 1
        whole, rest = (rest + data[:cut], data[cut:]) if cut else (b"", rest + data)
        text = whole.rstrip(b"\r\n")
        # Blank lines may be those at the list's end: they wait for what follows.
        if text:
            rest = whole[len(text) :].removeprefix(b"\r").removeprefix(b"\n") + rest
        else:
            rest = whole + rest
        if text:
            yield _plain(text + b"\n")
        if len(rest) > PIECE:
            yield rest + b" " * 2 * PIECE
            return
    if last := rest.rstrip(b"\r\n"):
        yield _plain(last + b"\n")


def _plain(chunk: bytes) -> bytes:
    return chunk.replace(b"\r\n", b"\n") if b"\r" in chunk else chunk


def _parsed_columns(
    chunk: bytes, kinds: Mapping[str, str], separator: str
) -> dict[str, Array] | None:
    """Return the columns of lines with one field for each kind; None if a line is not so."""
    import pandas as pd

    names: Any = list(kinds)
    width = len(names)
    data = np.frombuffer(chunk, np.uint8)
    is_end = (data == ord(separator)) | (data == 10)
    ends = np.flatnonzero(is_end)
    # The parser takes a byte-order mark away at the start of each piece.
    if len(ends) % width or b"\0" in chunk or b"\r" in chunk or _MARK in chunk:
        return None
    kind = data[ends].reshape(-1, width)
    if (kind[:, -1] != 10).any() or (kind[:, :-1] == 10).any():
        return None
    if separator != "," and (np.diff(ends, prepend=-1) == 1).any():
        return None
    whole = [i for i, name in enumerate(names) if kinds[name] in ("id", "label")]
    if whole and _not_digits(data, is_end, ends, separator).reshape(-1, width)[:, whole].any():
        return None  # the parser takes +1, 1e0 and 3.0 for whole numbers too
    wanted: Any = [name for name in names if kinds[name]]
    try:
        with np.errstate(all="ignore"):  # an infinity that is no whole number is an error anyway
            frame = pd.read_csv(
                io.BytesIO(chunk),
                sep=separator,
                header=None,
                names=names,
                usecols=wanted,
                dtype={name: _DTYPE[kinds[name]] for name in wanted},
                engine="c",
                na_values={name: _NAN_WORDS for name in wanted if kinds[name] == "score"},
                keep_default_na=False,
                skipinitialspace=separator == ",",
                quoting=3,
                skip_blank_lines=False,
                lineterminator="\n",
                low_memory=False,
            )
    except (ValueError, ArithmeticError):
        return None
    if len(frame) != len(kind):
        return None
    texts = [name for name in wanted if kinds[name] == "text"] if separator == "," else []
    for name in texts:
        frame[name] = frame[name].str.strip()
        if b'"' in chunk and frame[name].str.startswith('"').any():
            return None
    return {name: frame[name].to_numpy() for name in wanted}


def _not_digits(data: Array, is_end: Array, ends: Array, separator: str) -> Array:
    """Return which fields (bool) hold anything but digits, or blanks in a csv file."""
    other = ~is_end & (data - np.uint8(ord("0")) > 9)
    if separator == ",":
        other &= (data != ord(" ")) & (data != ord("\t"))
    found: Array = np.logical_or.reduceat(other, np.append(0, ends[:-1] + 1))
    return found


def _wrong_lines(columns: Mapping[str, Array], kinds: Mapping[str, str]) -> Array:
    """Return which lines (bool) hold a value that its kind does not allow."""
    wrong = np.zeros(len(next(iter(columns.values()))), bool)
    for name, values in columns.items():
        if kinds[name] in ("number", "score"):
            wrong |= ~(np.abs(values) <= LARGEST_NUMBER) & ~(
                (kinds[name] == "score") & np.isnan(values)
            )
        elif kinds[name] != "text":
            wrong |= (values < 0) | (values > (1 if kinds[name] == "label" else 10**18))
    return wrong
