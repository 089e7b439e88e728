"""Every error a user can meet: one hierarchy, one sentence each, one exit code a kind."""

from __future__ import annotations

import errno

TYPE_CHECKING = False  # without importing typing: this is imported before signals are looked after
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

# Said by what computes shards, and by anything else.
INTERRUPTED = "interrupted: every finished shard is kept; the same command continues from there."
STOPPED = "interrupted: no file is left half-written; give the same command again."


class QfuseError(Exception):
    """Base of all errors that are reported as a sentence, without a traceback."""

    exit_code = 1


class UsageError(QfuseError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class InvalidInput(QfuseError):
    """A config, manifest, data set or weight file is not what it should be."""

    exit_code = 3


class TooManyFailures(QfuseError):
    """More rows failed than the run allows."""

    exit_code = 4


class CorruptArtifact(QfuseError):
    """A stored artifact no longer holds what was written.

    `output` and `key` name it in the store at `root`, if it is known which one it is. `doubted` are
    others (output, key) to be checked byte by byte, because the work that met this one would go on
    to read them.
    """

    exit_code = 5

    def __init__(
        self, sentence: str, output: str = "", key: str = "", root: Path | None = None
    ) -> None:
        super().__init__(sentence)
        self.output, self.key, self.root = output, key, root
        self.doubted: Collection[tuple[str, str]] = ()


class ResourceRefused(QfuseError):
    """The machine refuses what the run needs: a read-only store, a full disk, no GPU."""

    exit_code = 6


class Interrupted(QfuseError):
    """Stopped by the user; whatever was committed stays, and the same command resumes."""

    exit_code = 130


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not known, with the nearest valid one."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    if not near:  # in capitals, or with _ for -
        alike = {_folded(each): each for each in names}
        near = [alike[each] for each in get_close_matches(_folded(name), alike, n=1, cutoff=0.6)]
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(names) or 'none'}."
    return f"unknown {kind} {name!r}: {hint}"


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


def counted(count: int, word: str, plural: str = "") -> str:
    """Return a number with its noun, as in "1 file" and "2 files".

    `plural` is given for an irregular noun.
    """
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def in_words(value: object) -> str:
    """Return, in words for a message, the value that was found where another was expected.

    YAML's null is what an empty field is.
    """
    return "nothing" if value is None else f"{value!r:.60}"


def advice(error: OSError) -> str:
    """Return what to do where the machine refuses to open or read a file."""
    known = {
        errno.EMFILE: "too few files may be open at once: raise `ulimit -n`, or use fewer workers",
        errno.ENFILE: (
            "too few files may be open at once: close other programs, or use fewer workers"
        ),
        errno.ENOSPC: "free some space",
        errno.EACCES: "fix its permissions",
        errno.EPERM: "fix its permissions",
    }
    return known.get(error.errno or 0, "check the disk or the network")


def cannot_write(path: Path, error: OSError) -> ResourceRefused:
    """Return the error for a file that the machine refuses to write."""
    known = {
        errno.ENOSPC: "free some space, or choose another place",
        errno.EDQUOT: "free some space, or choose another place",
        errno.EFBIG: (
            "no file may be as large as that: raise the limit (`ulimit -f`), or choose another"
            " place"
        ),
    }
    what = known.get(error.errno or 0, "choose another place")
    return ResourceRefused(f"{path} cannot be written ({error.strerror or error}): {what}.")


# The words of libraries that have no exception of their own for a lack of memory: PyTorch on a CPU,
# OpenCV, ONNX Runtime, the loader of shared libraries, and CUDA's (PyTorch, FAISS, cuBLAS).
_NO_MEMORY = (
    *(
        "DefaultCPUAllocator",
        "(-4:Insufficient memory)",
        "bad_alloc",
        "bad allocation",
        "Failed to allocate memory",
    ),
    *("failed to map segment", "cannot allocate memory", "Cannot allocate memory"),
    *("CUDA error: out of memory", "cudaMalloc error out of memory", "STATUS_ALLOC_FAILED"),
)
_NO_THREAD = (
    "can't start new thread",
    "Resource temporarily unavailable",
    "Thread creation failed",
)


def no_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in whichever library."""
    # PyTorch's own, known by name so as not to import it
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    if named or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return _librarys(error) and any(words in str(error) for words in _NO_MEMORY)


def no_thread(error: BaseException) -> bool:
    """Whether an error says that the system refused a thread or a process, in whichever library."""
    return getattr(error, "errno", None) == errno.EAGAIN or (
        _librarys(error) and any(words in str(error) for words in _NO_THREAD)
    )


def _librarys(error: BaseException) -> bool:
    """Whether a message is a library's own.

    A message of ValueError or its like may quote a file instead.
    """
    return type(error) in (RuntimeError, ImportError) or type(error).__module__ != "builtins"


def cannot_read(path: Path, error: OSError) -> ResourceRefused:
    """Return the error for a file that the machine, not the file's owner, refuses to read."""
    return ResourceRefused(
        f"{path} cannot be read ({error.strerror or error}): {advice(error)}, and run again."
    )
