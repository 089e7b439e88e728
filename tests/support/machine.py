"""A machine that refuses: no permission for a file, no more open files, no memory; each for the
length of a `with`.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every user may look into; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)  # noqa: S103
        yield Path(name)


@contextmanager
def unprivileged() -> Iterator[None]:
    """For root, to whom no permission is refused, be another user."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Every opening of a file fails with EMFILE."""
    with _limited(resource.RLIMIT_NOFILE, 0):
        yield


@contextmanager
def little_memory(more: int) -> Iterator[None]:
    """At most `more` bytes can be had in addition."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    with _limited(resource.RLIMIT_AS, pages * resource.getpagesize() + more):
        yield


@contextmanager
def _limited(kind: int, limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
