"""Raw quality scores → 0…100, by where they stand among the scores of a named reference set.

Conventions
    File        that of `reference_statistics` (qfuse-reference/1): the one file serves
                `statistics.reference` too. What is written here also has `digest`, the digest of
                the set's face ids, statuses and scores; equal scores of equal faces give equal
                bytes, as there is no time in it.
    Calibrated  the percentile of a score in the reference set: p at the p-th of its 101
                percentiles, linear between two of them, 0 below the least score and 100 above the
                greatest. A score at which several percentiles meet has the middle of them. So it
                never falls as the raw score rises.
    Integer     calibrated, rounded half up: 0…100, the range in which ISO/IEC 29794-1 records a
                quality. It is a place in the reference set and no quality component of ISO/IEC
                29794-5, whose mappings are others.
    No score    nan stays nan; in a table that is written it is blank.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.core.schema import Array, Batch, Status
from pipeline.core.stage import Context, Source, Work
from pipeline.errors import InvalidInput, UsageError, counted, unknown
from pipeline.files.file_tree import MAX_FILE_BYTES
from pipeline.system.regular_file import open_regular
from stages.quality.reference_statistics import (
    MAX_REFERENCE_BYTES,
    Statistics,
    StatisticsOptions,
    checked_reference,
    reference_content,
)
from stages.tables import csv_text, score_text

CALIBRATED = ("calibrated", "calibrated_integer")
# decimals of a calibrated score in a table: finer than the percentiles of any set are known
DECIMALS = 4
Floats = NDArray[np.float64]


def calibrated(scores: ArrayLike, percentiles: ArrayLike) -> Floats:
    """Return the place of each score in a reference set, 0…100: (n,) float64, nan for nan.

    scores (n,) float; percentiles (101,) float, ascending: the scores at 0, 1, …, 100 % of the set,
    as numpy.percentile gives them.

    >>> calibrated([0.1, 0.505, 2.0], np.linspace(0, 1, 101))
    array([ 10. ,  50.5, 100. ])
    """
    score, levels = np.asarray(scores, np.float64), np.asarray(percentiles, np.float64)
    # Percentiles equal to the score are first … after − 1. If there are any, their middle is the
    # place; else the place lies between the percentiles below and above.
    first, after = np.searchsorted(levels, score, "left"), np.searchsorted(levels, score, "right")
    below, above = np.clip(first - 1, 0, 100), np.clip(first, 0, 100)
    gap = levels[above] - levels[below]
    within = np.divide(score - levels[below], gap, out=np.zeros(score.shape), where=gap > 0)
    place = np.where(after > first, (first + after - 1) / 2, below + within)
    return np.where(np.isnan(score), np.nan, place)


def as_integers(values: ArrayLike) -> Floats:
    """Return calibrated scores rounded half up: (n,) float64 of whole numbers 0…100.

    nan stays nan.

    >>> as_integers([49.5, 50.4])
    array([50., 50.])
    """
    return np.asarray(np.floor(np.asarray(values, np.float64) + 0.5), np.float64)


def reference_set(
    name: str, measure: Mapping[str, Any], face_ids: Array, scored: Batch, context: Context
) -> dict[str, Any]:
    """Return the content of the file of a reference set, from the scores (QUALITIES) of its faces.

    Raises InvalidInput if no face has a score.
    """
    source = Source(
        (0,),
        (scored.rows,),
        lambda _, columns: scored if columns is None else scored.select(columns),
    )
    statistics = Statistics(StatisticsOptions(), context).compute(
        Work(0, scored.rows, {}, {"quality": source})
    )[""]
    if not statistics["count"][0]:
        raise InvalidInput(
            f"{name} has no face with a quality score, so it is not a reference set."
        )
    digest = Batch(
        {"face_id": face_ids, "status": scored["status"], "quality": scored["quality"]}
    ).digest()
    return {**reference_content(name, measure, statistics), "digest": digest}


def read_reference(path: Path) -> dict[str, Any]:
    """Return the checked content of the file of a reference set.

    Raises InvalidInput if it is not such a file, or cannot be read.
    """
    found = checked_reference(
        _read_bytes(
            path, MAX_REFERENCE_BYTES, "`qfuse quality calibrate CONFIG --name NAME` writes one"
        ),
        path,
    )
    return {**found, "set": str(found.get("set", "unnamed"))}


def refuse_other(reference: Mapping[str, Any], measure: Mapping[str, Any], path: Path) -> None:
    """Raise InvalidInput if the reference set was scored in another way than `measure` says."""
    found = reference["measure"]
    if found == measure:
        return
    was = found.get("method") if isinstance(found, dict) else None
    if was == measure["method"]:
        differs = "by the same measure with another " + _what_differs(found, measure)
    else:
        differs = f"by {was!r}" if was else "in no way that it names"
    raise InvalidInput(
        f"{path}: the reference set {reference['set']!r} was scored {differs}, and these faces are"
        f" by {measure['method']!r}: scores of two methods have no common scale; name the file of"
        " a set that was scored as these faces are."
    )


def scores_table(face_ids: Array, scored: Batch, reference: Mapping[str, Any]) -> str:
    """Return face ids, statuses, reasons, raw and calibrated scores as CSV with a header."""
    raw = np.where(scored["status"] == Status.OK, scored["quality"], np.float32(np.nan))
    rows = [
        face_ids,
        [Status(code).name.lower() for code in scored["status"].tolist()],
        scored["reason"],
        _number_texts(raw),
    ]
    columns = [*rows, *_calibrated_columns(raw, reference)]
    return csv_text.of_rows(
        ["face_id", "status", "reason", "quality", *CALIBRATED], zip(*columns, strict=True)
    )


def read_scores(
    path: Path, column: str | None = None
) -> tuple[list[str], list[list[str]], NDArray[np.float32]]:
    """Return the header, the columns and the scores (n,) float32 of a table (`score_text`).

    A face without a score has nan. Raises InvalidInput for what is not such a table, and for a
    score that is not a number, with its line; UsageError if the table has a header and no column is
    given.
    """
    try:
        content = _read_bytes(path, MAX_FILE_BYTES, "give a config or a table of scores").decode(
            "utf-8-sig"
        )
        if not content.strip():
            raise InvalidInput(f"{path} is empty: expected a table of scores, a line a face.")
        table = score_text.table_of(content, column)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} is no CSV in UTF-8 ({error}).") from None
    header = table.header
    if header is None:
        header = score_text.header_of(table, column, str(path))
        column = header[-1]
    elif column is None:
        raise UsageError(
            f"{path} is a table of scores, and its header"
            f" ({shorten(', '.join(header), 60, placeholder=' …')}) is line 1: say which column"
            f" holds them, as in --column {score_text.likely_score_column(header)}."
        )
    elif column not in header:
        raise InvalidInput(
            f"{path}, whose fields are read between {table.separator}:"
            f" {unknown('column', column, header)}"
        )
    elif header.count(column) > 1:
        raise InvalidInput(
            f"{path} has {header.count(column)} columns {column!r}: leave in the one that holds the"
            " scores."
        )
    if taken := [name for name in CALIBRATED if name in header]:
        raise InvalidInput(
            f"{path} has a column {taken[0]!r} already: leave it out, so that nothing is lost."
        )
    for line, row in zip(table.lines, table.rows, strict=True):
        if len(row) != len(header):
            found = f"{counted(len(row), 'field')} between {table.separator}"
            raise InvalidInput(f"{path}: line {line} has {found}, and the first has {len(header)}.")
    if table.rows:
        columns = [list(values) for values in zip(*table.rows, strict=True)]
    else:
        columns = [[] for _ in header]
    scores = _as_scores(columns[header.index(column)], table.lines, column, path)
    if score_text.minus_one_is_none(column):
        scores[scores == -1] = np.nan
    return header, columns, scores


def completed_table(
    header: list[str], columns: list[list[str]], scores: Array, reference: Mapping[str, Any]
) -> str:
    """Return a table as it was, with the calibrated scores added."""
    return csv_text.of_rows(
        [*header, *CALIBRATED], zip(*columns, *_calibrated_columns(scores, reference), strict=True)
    )


def placement_sentence(scores: Array, reference: Mapping[str, Any]) -> str:
    """Say in a sentence how scores lie in a reference set."""
    known = scores[~np.isnan(scores)]
    low = int((known < reference["percentiles"][0]).sum())
    high = int((known > reference["percentiles"][-1]).sum())
    if len(known):
        middle = f", the median at {np.median(calibrated(known, reference['percentiles'])):.1f}"
    else:
        middle = ""
    named = f"{reference['set']} ({counted(reference['count'], 'face')})"
    return (
        f"{counted(len(known), 'score')} in the reference set {named}{middle}; {low:,} below its"
        f" least, {high:,} above its greatest, {len(scores) - len(known):,} without a score"
    )


def _as_scores(values: list[str], lines: list[int], column: str, path: Path) -> NDArray[np.float32]:
    """Return texts as float32, the type of a reference set's scores.

    In float64 a score of the set itself would miss its own percentile.
    """
    numbers = np.empty(len(values), np.float32)
    for i, value in enumerate(values):
        try:
            numbers[i] = score_text.parsed_number(value)
        except ValueError as error:
            raise InvalidInput(
                f"{path}: line {lines[i]}: {column} is {value!r:.60}, which {error}."
            ) from None
    return numbers


def _calibrated_columns(scores: Array, reference: Mapping[str, Any]) -> list[list[str]]:
    found = calibrated(scores, reference["percentiles"])
    return [
        _number_texts(np.round(found, DECIMALS)),
        [value.removesuffix(".0") for value in _number_texts(as_integers(found))],
    ]


def _number_texts(values: Array) -> list[str]:
    """Return numbers as the shortest texts that read back the same; nan is blank."""
    return ["" if value == "nan" else value for value in values.astype(str).tolist()]


def _what_differs(found: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    words = {
        "version": "version",
        "identity": "weights or preprocessing",
        "from": "model or detector above it",
        "seed": "seed",
    }
    return (
        " and ".join(word for key, word in words.items() if found.get(key) != measure.get(key))
        or "measure"
    )


def _read_bytes(path: Path, most: int, otherwise: str) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror or error}); {otherwise}."
        ) from None
    if len(data) > most:
        raise InvalidInput(
            f"{path} has more than {most:,} bytes, which is too large to be what is expected."
        )
    return data
