"""Embeddings and qualities beside IJB's lists, as .npy files: bounded, and without pickle."""

from __future__ import annotations

import io
import warnings

import numpy as np

from pipeline.core.schema import Array
from pipeline.files.file_tree import Files
from stages.datasets.ijb.lists import open_file
from stages.datasets.problems import Problems

FLOAT_TYPES = ("<f2", "<f4", "<f8")


def read_array(files: Files, name: str, shape: tuple[int | None, ...], problems: Problems) -> Array:
    """Return a .npy file of this shape (None: any length) as float32.

    If it is refused, `problems` says why and the array is empty. The file may hold float16, float32
    or float64, by row or by column, and one number a row may be a column (n, 1). Its header is
    compared with its size before memory is taken, and no pickle is read. Rows of nan stay rows.
    """
    blank = np.empty([size or 0 for size in shape], np.float32)
    stream = open_file(files, name, problems)
    if stream is None:
        return blank
    with stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            with warnings.catch_warnings(action="ignore"):  # of files that old programs wrote
                found, by_column, dtype = read(stream)
        except Exception as error:  # the header is a Python literal, which fails in many ways
            line = (str(error).splitlines() or [type(error).__name__])[0]
            problems.add(name, [f"it is no .npy file ({line:.120})"])
            return blank
        here = stream.tell()
        held = stream.seek(0, io.SEEK_END) - here
        found = found[:1] if len(shape) == 1 and found[1:] == (1,) else found
        fits = len(found) == len(shape) and all(
            want in (None, got) for want, got in zip(shape, found, strict=True)
        )
        if not fits or dtype not in map(np.dtype, FLOAT_TYPES):
            words = (
                "float16, float32 or float64, of shape ("
                + ", ".join("any" if n is None else f"{n:,}" for n in shape)
                + ")"
            )
            problems.add(name, [f"expected {words}, found {dtype} of shape {found}"])
            return blank
        count = int(np.prod(found, dtype=object))
        if held != dtype.itemsize * count or 0 in found[1:]:
            problems.add(
                name,
                [
                    f"its header announces {dtype.itemsize * count:,} bytes of values, found"
                    f" {held:,}"
                ],
            )
            return blank
        stream.seek(here)
        values = np.empty(count, dtype)
        stream.readinto(values.view(np.uint8))  # type: ignore[attr-defined]
        with np.errstate(over="ignore"):  # overflow gives infinity, which fails when it is used
            return np.ascontiguousarray(
                values.reshape(found, order="F" if by_column else "C"), np.float32
            )
