"""The command `qfuse`: where it begins and how it ends. What it does is in `pipeline.cli.verbs`.

Nothing is imported before signals and streams are looked after: importing takes most of a short
command's time.
"""

from __future__ import annotations

import os
import sys

from pipeline.system import interruption
from pipeline.system.interruption import end, interruptible


def main() -> None:
    """Run the command line; a known error becomes a sentence on stderr and an exit code."""
    _open_closed()
    sys.exit(interruptible(_settled))


def _open_closed() -> None:
    """Open whichever of standard input, output and error is closed.

    Otherwise the next file to be opened would get its number.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _settled() -> int:
    from pipeline.system import streams

    streams.prepare()
    try:
        return _ended()
    finally:
        streams.settle()


def _ended() -> int:
    """Run the verb and return the exit code."""
    from pipeline.errors import Interrupted, QfuseError, no_memory, no_thread

    try:
        from pipeline.cli.verbs import command

        return command()
    except Interrupted:
        end()
    except QfuseError as error:
        return _failed(str(error), error.exit_code)
    except UnicodeEncodeError as error:
        todo = "set PYTHONUTF8=1 and run the same command again."
        return _failed(
            f"{error.object!r} cannot be written in this environment's {error.encoding}; {todo}", 6
        )
    except Exception as error:
        todo, rows, kept = "close other programs", "", "No file is left half-written."
        if interruption.computing:
            todo, rows = "use fewer --workers", ", or smaller dataset.shard_rows"
            kept = "Finished shards are kept."
        if no_memory(error):
            return _failed(f"out of memory; {todo}{rows}. {kept}", 6)
        if no_thread(error):
            limit = "raise the limit (`ulimit -u`)"
            return _failed(f"the system refused a thread; {todo}, or {limit}. {kept}", 6)
        if isinstance(error, OSError):
            from pipeline.system.disk import in_the_way

            if blocked := in_the_way(error):
                return _failed(f"{blocked}; move it away and run the same command again.", 6)
            place = error.filename or "the system"
            return _failed(
                f"{place}: {error.strerror or error}; fix that and run the same command again.", 6
            )
        import traceback

        lines = traceback.format_exc().rstrip()
        return _failed(
            f"internal error; what is stored stays whole. Please report the lines below.\n{lines}",
            1,
        )


def _failed(sentence: str, code: int) -> int:
    from pipeline.system.streams import warn

    warn(f"qfuse: {sentence}")
    return code
