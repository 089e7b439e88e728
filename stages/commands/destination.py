"""Where a verb may write its file: a fitting name, an existing folder, not among its inputs."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from pipeline.config.config import Config
from pipeline.errors import InvalidInput, ResourceRefused, UsageError
from pipeline.session import store_root
from pipeline.system.atomic_text import is_free
from pipeline.system.regular_file import obstacle


def need_name(path: Path, writes: str, *suffixes: str) -> None:
    """Raise UsageError for a wrong suffix, InvalidInput if the folder does not exist.

    `writes` says who writes what, as in "build writes HDF5".
    """
    endings = " or ".join(suffixes)
    if not path.name:  # as of an empty name, which is the working folder
        raise UsageError(f"give the name of a file that ends in {endings}.")
    if path.suffix.lower() not in suffixes:
        raise UsageError(
            f"{path}: {writes}: give a name that ends in {endings}, such as NAME{suffixes[0]}."
        )
    need_folder(path)


def need_folder(path: Path) -> None:
    """Raise InvalidInput if the folder to write into does not exist, or is no folder.

    Raises ResourceRefused if nothing may be written into it.
    """
    folder = path.parent
    if blocked := obstacle(folder):
        raise InvalidInput(f"{path} cannot be written: {blocked}.")
    if not folder.is_dir():
        make = f"mkdir -p {shlex.quote(str(folder))}"
        raise InvalidInput(
            f"{path}: expected an existing folder, and there is no {folder}: `{make}` makes it."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceRefused(
            f"{path} cannot be written: no permission to write into {folder}; give another folder."
        )


def need_absent(path: Path) -> None:
    """Raise InvalidInput if something is at `path`."""
    if not is_free(path):
        raise InvalidInput(f"{path} exists already; give another name, so that nothing is lost.")


def need_apart(path: Path, config: Config, store: Path | None) -> None:
    """Raise InvalidInput if a file would lie in the config's store, or in its data set.

    A data set around the config itself is a project's folder, in which results are expected.
    """
    place, root = Path(os.path.realpath(path)), Path(os.path.realpath(store_root(config, store)))
    if place.is_relative_to(root):
        raise InvalidInput(
            f"{path} lies in the store {root}, where nothing but artifacts belongs: give another"
            " folder."
        )
    if config.dataset.path is None:
        return
    data = Path(os.path.realpath(config.resolve(config.dataset.path)))
    if place.is_relative_to(data) and not config.base.resolve().is_relative_to(data):
        raise InvalidInput(
            f"{path} lies in the data set {data}, which is only read: give another folder."
        )
