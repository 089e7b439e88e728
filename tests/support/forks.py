"""The command in processes of its own, forked from one that has imported everything: what takes a
second takes a moment.

Such a process runs `pipeline.cli.main.main` with arguments, environment, folder, signals and
standard error of its own; it may be killed as a real one may, and without `rights` it is refused
what permissions forbid, also where root runs it.
"""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from children import environment
from laboratory import Lab

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        *("dask.distributed", "faiss", "h5py", "numpy", "pandas", "rich.table", "torch"),
        *("stages.builtin", "stages.commands.main", "stages.report.report"),
        *(
            "pipeline.cli.verbs",
            "pipeline.cli.display",
            "pipeline.plan.check",
            "pipeline.run.shard_computer",
        ),
    ]
)
_started: list[BaseProcess] = []


@dataclass
class Fork:
    """A running command; `wait` returns its exit code, negative for a signal, and what it said on
    standard error.
    """

    process: BaseProcess
    error: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def wait(self, seconds: float = 60) -> tuple[int | None, str]:
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
        return code, self.error.read_text()


def fork(lab: Lab, *words: object, rights: bool = True, **more: str) -> Fork:
    """Start `qfuse run` on the laboratory's config with more words, or the verb that the first word
    names in full.
    """
    known = environment(lab, **more)
    arguments = [str(word) for word in words]
    if not (arguments and arguments[0] == "store"):
        arguments = ["run", str(lab.root / "config.yaml"), *arguments]
    arguments += ["--store", str(lab.root / lab.store)]
    handle, error = tempfile.mkstemp(dir=lab.root, prefix="error-")
    os.close(handle)
    process = _context.Process(
        target=_command, args=(arguments, str(lab.root), known, error, rights)
    )
    process.start()
    _started.append(process)
    return Fork(process, Path(error))


def forked(lab: Lab, *words: object, expect: int = 0, rights: bool = True, **more: str) -> str:
    """Run a command to its end, and return what it said on standard error."""
    code, error = fork(lab, *words, rights=rights, **more).wait()
    assert code == expect, f"{code}: {error}"
    return error


def answered(folder: Path, words: list[str], environ: dict[str, str]) -> tuple[int, str, str]:
    """Run a command line in `folder` to its end; return its exit code, and what it printed and said
    on standard error.
    """
    with tempfile.TemporaryDirectory() as at:
        process = _context.Process(target=_in_files, args=(words, str(folder), environ, at))
        process.start()
        process.join(120)
        code = process.exitcode
        if code is None:
            _started.append(process)
            end_all()
            raise AssertionError(f"qfuse {' '.join(words)} has not ended within two minutes")
        process.close()
        out, error = ((Path(at) / name).read_text() for name in ("out", "error"))
        return code, out, error


def end_all() -> None:
    """End whatever still runs of what `fork` started, with all that it started itself."""
    while _started:
        process = _started.pop()
        if process.is_alive() and process.pid:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.join()


def until(true: Callable[[], bool], *forks: Fork) -> None:
    """Wait until something is true; fail where one of the processes ends before, or nothing
    comes."""
    for _ in range(6000):
        if true():
            return
        for fork in forks:
            assert fork.process.is_alive(), fork.wait()
        time.sleep(0.01)
    raise AssertionError("nothing came")


def _in_files(words: list[str], folder: str, environ: dict[str, str], at: str) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "error")):
        os.dup2(os.open(f"{at}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    _become(words, folder, environ)


def _command(
    words: list[str], folder: str, known: dict[str, str], error: str, rights: bool
) -> None:
    os.dup2(os.open(error, os.O_WRONLY | os.O_APPEND), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.path[:0] = [path for path in known["PYTHONPATH"].split(os.pathsep) if path not in sys.path]
    if not rights:
        _obey()
    _become(words, folder, known)


def _become(words: list[str], folder: str, environ: dict[str, str]) -> None:
    """Run a command line in this process, in a folder and with an environment of its own."""
    from pipeline.cli.main import main

    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0, closefd=False), write_through=True)
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["qfuse", *words]
    main()


def _obey() -> None:
    """Give up the right to write what may not be written (capabilities(7): CAP_DAC_OVERRIDE, number
    1).
    """
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0], sets[1] = sets[0] & ~2, sets[1] & ~2
    assert libc.capset(header, sets) == 0
