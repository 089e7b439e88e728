"""Standard output and error, whatever they are: a terminal, a file, a closed pipe, or nothing.

They may have any encoding.

Whatever the command prints passes `visible`: names of files and people are other people's, and a
terminal obeys what it is given.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from contextlib import suppress
from typing import Any, TextIO

from pipeline.errors import ResourceRefused

# Control characters but tab and newline, what turns the direction of writing, separators of lines,
# and halves of characters.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What tables and sentences hold that is not ASCII, for streams that have no better.
_PLAIN = {
    "…": "...",
    "–": "-",
    "−": "-",
    "·": "*",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "†": "+",
    "▲": "^",
    "▼": "v",
}


def visible(text: str) -> str:
    """Return a text in which what a terminal would obey or cannot show is escaped, as `\\x1b`."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def visible_line(text: str) -> str:
    """Return a text that stays on its line."""
    return visible(text).replace("\n", "\\n")


def say(text: str) -> None:
    """Print lines on standard output."""
    put(f"{visible(text)}\n")


def warn(text: str) -> None:
    """Print lines on standard error, where there is anybody to read them."""
    with suppress(OSError):
        sys.stderr.write(f"{visible(text)}\n")
        sys.stderr.flush()


def put(text: str) -> None:
    """Write to standard output as it is.

    What nobody reads any more (`| head`) is not written, and ends nothing. Raises ResourceRefused
    if it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go(sys.stdout)
    except OSError as error:
        _let_go(sys.stdout)
        raise ResourceRefused(
            f"cannot write to standard output ({error.strerror or error}): choose another place."
        ) from None


def prepare() -> None:
    """Open missing streams, and make every character printable in any encoding."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(
                sys, name, os.fdopen(number, "w", encoding="utf-8", errors="plain", closefd=False)
            )
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an encoding lacks by what looks like it, else as backslashreplace does."""
    if isinstance(error, UnicodeEncodeError) and (found := _PLAIN.get(error.object[error.start])):
        return found, error.start + 1
    return codecs.backslashreplace_errors(error)


codecs.register_error("plain", _plain)


def settle() -> None:
    """Write what waits to be written.

    What cannot be is let go, so that Python has nothing to say of it as it ends.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _let_go(stream)


def _let_go(stream: TextIO) -> None:
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
