"""Every error a user can meet: one hierarchy, one sentence each, one exit code a kind."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
    """More rows failed to acquire than the run allows."""

    exit_code = 4


class CorruptArtifact(QfuseError):
    """A stored artifact no longer holds what was written."""

    exit_code = 5


class ResourceRefused(QfuseError):
    """The machine refuses what the run needs: a read-only store, a full disk, no GPU."""

    exit_code = 6


class Interrupted(QfuseError):
    """Stopped by the user; whatever was committed stays, and the same command resumes."""

    exit_code = 130


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not known, with the nearest valid one."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(names) or 'none'}."
    return f"unknown {kind} {name!r}: {hint}"
