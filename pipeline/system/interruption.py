"""Ctrl-C and SIGTERM end the command at once, with one sentence and exit code 130.

It does not matter what the command is doing. The first signal raises KeyboardInterrupt in the main
thread, so that what is open is closed well. That alone is not enough: a library may swallow the
exception, and what is waited for may take long. So a thread ends the process GRACE seconds later,
wherever it is. That harms nothing, because files appear whole or not at all. A second signal ends
it without that moment, and so does a first one amid an import: native modules do not survive an
exception there, or go on without a part of themselves.

This is in place before anything else is imported, and imports next to nothing itself: until then
Python shows a traceback.
"""

from __future__ import annotations

import _thread
import os
import select
import signal

from pipeline.errors import INTERRUPTED, STOPPED

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

GRACE = 1.0  # seconds
SIGNALS = (signal.SIGINT, signal.SIGTERM)

computing = False  # shards, which are kept: only then the sentence speaks of them
folders: set[str] = set()  # temporary folders to remove if the process ends at once

_told = _thread.allocate_lock()  # taken by the thread that prints the sentence, and never released
_printed = _thread.allocate_lock()  # held until the sentence is printed
_printed.acquire()
_raised = _thread.allocate_lock()  # taken when KeyboardInterrupt is raised, and never released
_over = False  # the command has done its work


def interruptible(call: Callable[[], int]) -> int:
    """Return what `call` returns; from now on SIGINT and SIGTERM end this process, with 130.

    A signal that is ignored stays ignored.
    """
    global _over, computing
    _over = computing = False
    if not any(signal.getsignal(number) is _stop for number in SIGNALS):
        _install()
    try:
        return call()
    finally:
        _over = True  # a thread may still keep the process from its end
        if _told.locked():  # whatever a library has made of the interruption
            end()


def end() -> NoReturn:
    """Print the sentence; end this process and all that it started, and wait for nothing."""
    _tell()
    for child in _descendants():
        try:  # noqa: SIM105 - contextlib is not light
            os.kill(child, signal.SIGKILL)
        except OSError:
            pass
    for folder in tuple(folders):  # the main thread may still remove one
        import shutil  # the code that made the folder has imported it

        shutil.rmtree(folder, ignore_errors=True)
    os._exit(130)


def _install() -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
            signal.signal(number, _stop)
    seen, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        _thread.start_new_thread(_watch, (seen,))
    except RuntimeError:  # no thread is allowed, so only the main thread can end the process
        os.close(seen)


def _stop(number: int, frame: FrameType | None) -> None:
    if _over or _importing(frame) or not _raised.acquire(blocking=False):
        end()
    _tell()
    raise KeyboardInterrupt


def _watch(seen: int) -> None:
    """Wait for a signal, and end GRACE seconds after it.

    A signal arrives here even while the main thread is deep in a library.
    """
    while os.read(seen, 1)[0] not in SIGNALS:
        pass
    _tell()
    select.select([seen], [], [], GRACE)
    end()


def _tell() -> None:
    """Print the sentence, once; silence what this process and its children would say after it."""
    if not _told.acquire(blocking=False):
        if _printed.acquire(timeout=1):  # by another thread, before this one ends the process
            _printed.release()
        return
    below = "\n\x1b[?25h" if os.isatty(2) else ""  # the progress bars, which hide the cursor
    error = 2
    try:
        error = os.dup(2)
        # first, so that the bars are not drawn over the sentence
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    except OSError:  # closed, or no more files may be open
        pass
    sentence = INTERRUPTED if computing else STOPPED
    try:
        os.write(error, f"{below}qfuse: {sentence}\n".encode())
    except OSError:  # nobody reads it
        os.closerange(2, 3)
    _printed.release()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _descendants() -> list[int]:
    """Return the processes below this one, without Python's resource trackers.

    Those tidy up and then end by themselves.
    """
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            with open(f"/proc/{int(name)}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if b"resource_tracker" not in file.read():
                    below.setdefault(parent, []).append(int(name))
        except (OSError, ValueError, IndexError):
            continue
    found, waiting = [], [os.getpid()]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found
