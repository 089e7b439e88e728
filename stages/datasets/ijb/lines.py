"""What is wrong with lines of an IJB list, in words; used only on pieces that do not parse."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from pipeline.core.schema import Array
from stages.datasets.problems import SHOWN_PROBLEMS

LARGEST_NUMBER = 1e30  # numbers are kept as float32
QUOTES = "; quotes are not understood: write the file without them"
WANTED = {
    "id": "a whole number from 0",
    "label": "0 or 1",
    "number": "a finite number",
    "score": "a finite number, or nan for none",
    "text": "UTF-8 text",
}
_WHOLE = re.compile(r"[0-9]{1,18}")


def line_problems(
    chunk: bytes, kinds: Mapping[str, str], separator: str, line: int, which: Array | None
) -> tuple[list[str], int]:
    """Return the first ten problems of a piece in words, and how many there are.

    `which`: the lines known to be wrong.
    """
    words: list[str] = []
    count = 0
    lines = chunk.split(b"\n")[:-1]
    for i in range(len(lines)) if which is None else np.flatnonzero(which).tolist():
        found = _line_problems(lines[i], kinds, separator)
        count += len(found)
        if len(words) < SHOWN_PROBLEMS:
            words += [
                f"line {line + i}{problem}" for problem in found[: SHOWN_PROBLEMS - len(words)]
            ]
    return words, count


def _line_problems(raw: bytes, kinds: Mapping[str, str], separator: str) -> list[str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return [f": expected UTF-8 text, found the byte {raw[error.start]:#04x}"]
    if "\ufeff" in text:
        return [
            f": expected a byte-order mark at the start of the file only, found one in {text!r:.80}"
        ]
    fields = text.split(separator)
    quotes = QUOTES if separator == "," and '"' in text else ""
    if len(fields) != len(kinds) or (separator != "," and "" in fields):
        if all(kinds.values()):
            form = separator.join(name for name in kinds)
        else:
            form = f"{len(kinds)} fields as the header has"
        return [f": expected {form!r}, found {text!r:.80}{quotes}"]
    if separator == ",":
        fields = [value.strip(" \t") for value in fields]
    return [
        f", column {name!r}: expected {WANTED[kind]}, found {value!r:.40}"
        + (quotes if '"' in value else "")
        for (name, kind), value in zip(kinds.items(), fields, strict=True)
        if kind and not _valid(value, kind, separator)
    ]


def _valid(value: str, kind: str, separator: str) -> bool:
    if "\0" in value or "\r" in value:
        return False
    if kind == "text":
        return separator != "," or not value.strip().startswith('"')
    if kind in ("id", "label"):
        return bool(_WHOLE.fullmatch(value)) and (kind == "id" or value in ("0", "1"))
    try:
        nothing = kind == "score" and value.lower() == "nan"
        return nothing or (abs(float(value)) <= LARGEST_NUMBER and "_" not in value)
    except ValueError:
        return False
